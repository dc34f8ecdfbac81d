import { LitElement, type PropertyValues, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { cancelDraw, requestDraw } from "./draw-loop";
import { feedMessage } from "./feed-message";
import { formatValue, outputName } from "../display/format";
import { live } from "../services";
import { base, controls, panel } from "../display/styles";
import { readTheme, watchTheme } from "../display/theme";
import { columnStyle } from "./trend-chart";
import type { TrendChart } from "./trend-chart";
import "./trend-chart";
import { TrendFeed } from "../live/trend-feed";

/** Lines drawn before somebody chooses others. */
const FIRST_SHOWN = 8;
const LANE_PX = 38;
/** Columns whose sizes differ more than this get a lane each. */
const FAR_APART = 25;
const LEGEND_INTERVAL_MS = 200;
const WINDOWS: readonly (readonly [string, number])[] = [
  ["1 min", 60],
  ["10 min", 600],
  ["all", 0],
];

/**
 * An array of named columns, live: lines over time, and a legend with the newest values that switches them.
 */
@customElement("wv-trend-panel")
export class TrendPanel extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    css`
      :host {
        display: block;
        min-width: 0;
        container-type: inline-size;
      }
      .body {
        display: grid;
        grid-template-columns: minmax(0, 1fr) 220px;
        padding: 0 4px 8px;
      }
      .chart {
        position: relative;
        height: max(var(--lanes, 0px), var(--trend-height, clamp(170px, 25vh, 260px)));
      }
      .message {
        position: absolute;
        inset: 0;
        display: grid;
        place-items: center;
        color: var(--muted);
        text-align: center;
      }
      ul {
        max-height: max(var(--lanes, 0px), var(--trend-height, clamp(170px, 25vh, 260px)));
        overflow-y: auto;
        padding: 4px 8px 4px 4px;
        scrollbar-width: thin;
        scrollbar-color: var(--line-strong) transparent;
      }
      li button {
        display: grid;
        grid-template-columns: 14px minmax(0, 1fr) auto;
        gap: 8px;
        align-items: center;
        width: 100%;
        padding: 3px 8px;
        border: 0;
        border-radius: 7px;
        background: none;
        font-size: 12.5px;
        text-align: left;
        cursor: pointer;
      }
      li button:hover {
        background: var(--raised);
      }
      li button[aria-pressed="false"] {
        color: var(--muted);
      }
      li button[aria-pressed="false"] .swatch {
        opacity: 0.25;
      }
      .swatch {
        height: 0;
        border-top: 2.5px solid;
      }
      .name {
        overflow: hidden;
        text-overflow: ellipsis;
        white-space: nowrap;
      }
      .value {
        font-weight: 600;
        font-variant-numeric: tabular-nums;
        white-space: nowrap;
      }
      .body.single {
        grid-template-columns: minmax(0, 1fr);
      }
      /* Each name beside its lane. */
      @container (min-width: 561px) {
        .aligned ul {
          display: grid;
          grid-auto-rows: minmax(26px, 1fr);
          align-items: center;
          padding: 4px 8px 28px 4px;
        }
      }
      header .value {
        font-size: 15px;
      }
      @container (max-width: 560px) {
        .body {
          grid-template-columns: minmax(0, 1fr);
        }
        ul {
          display: grid;
          grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
          max-height: 132px;
        }
      }
    `,
  ];

  /** Of the array. */
  @property() reference = "";
  @state() private lanes = false;
  @state() private window_s = 600;
  @state() private shown: boolean[] = [];
  @state() private feed: TrendFeed | null = null;
  /** Row that the cursor is on; null for the newest. */
  @state() private row: number | null = null;
  @state() private theme = readTheme();

  #scaled = false;
  #legend_due_ms = 0;
  #endWatch: () => void = () => {};

  override connectedCallback(): void {
    super.connectedCallback();
    this.#endWatch = watchTheme(() => (this.theme = readTheme()));
    if (this.hasUpdated) this.feed?.start();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#endWatch();
    cancelDraw(this.#draw);
    this.feed?.stop();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (!changed.has("reference")) return;
    this.feed?.stop();
    this.#scaled = false;
    this.lanes = false;
    this.feed = new TrendFeed(
      live,
      this.reference,
      () => this.#changed(),
      () => requestDraw(this.#draw),
    );
    this.feed.start();
  }

  #changed(): void {
    const names = this.feed!.names;
    if (names.length !== this.shown.length) this.shown = names.map((_, index) => index < FIRST_SHOWN);
    this.requestUpdate();
  }

  #draw = (): void => {
    if (!this.hasUpdated || !this.feed) return;
    if (!this.#scaled && (this.feed.rows?.count ?? 0) > 0) {
      this.#scaled = true;
      this.lanes = this.#farApart();
    }
    (this.renderRoot.querySelector("wv-trend-chart") as TrendChart).draw();
    const now_ms = performance.now();
    if (now_ms < this.#legend_due_ms) return;
    this.#legend_due_ms = now_ms + LEGEND_INTERVAL_MS;
    this.requestUpdate();
  };

  /** Whether the columns' sizes are too different for one scale. */
  #farApart(): boolean {
    const sizes = this.feed!.names.map((_, index) =>
      this.feed!.values(index).reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0),
    ).filter((size) => size > 0);
    return sizes.length > 1 && Math.max(...sizes) / Math.min(...sizes) > FAR_APART;
  }

  protected override render() {
    const feed = this.feed;
    const name = outputName(this.reference);
    const names = feed?.names ?? [];
    const lanes = this.lanes ? this.shown.filter(Boolean).length : 0;
    const shortage = feed?.shortage(this.window_s) ?? "";
    const shape = names.length === 1 ? "single" : lanes === names.length ? "aligned" : "";
    return html`<section
      class="panel"
      aria-label="Trend ${this.reference}"
      data-testid="trend-panel"
      data-ref=${this.reference}
    >
      <header>
        <h2>${name[0]?.toUpperCase()}${name.slice(1)}</h2>
        ${
          names.length === 1
            ? html`<span class="value" title=${names[0]!}>${formatValue(this.#value(0))}</span>`
            : nothing
        }
        ${
          feed && feed.width > names.length
            ? html`<span class="about">the first ${names.length} of ${feed.width} columns</span>`
            : nothing
        }
        ${
          shortage
            ? html`<span class="about" data-testid="shortage" title="Download the array to get all rows"
                >${shortage}</span
              >`
            : nothing
        }
        <span class="spring"></span>
        <button
          class="button"
          aria-pressed=${this.lanes}
          ?hidden=${names.length < 2}
          title="A lane and a scale for each line, to compare shapes"
          @click=${() => (this.lanes = !this.lanes)}
        >
          Lanes
        </button>
        <fieldset class="segments" aria-label="Time shown" ?hidden=${feed?.clock !== "event"}>
          ${WINDOWS.map(
            ([text, window_s]) =>
              html`<label
                ><input
                  type="radio"
                  name="window"
                  .checked=${this.window_s === window_s}
                  @change=${() => (this.window_s = window_s)}
                />${window_s === 0 && feed?.shortage(0) ? "newest" : text}</label
              >`,
          )}
        </fieldset>
      </header>
      <div class="body ${shape}" style="--lanes: ${lanes * LANE_PX + 32}px">
        <div class="chart">
          <wv-trend-chart
            .feed=${feed}
            .shown=${this.shown}
            .window_s=${this.window_s}
            ?lanes=${this.lanes}
            label="Trend of ${this.reference}: ${names.join(", ")}"
            @point=${(event: CustomEvent<number | null>) => (this.row = event.detail)}
          ></wv-trend-chart>
          ${this.#message()}
        </div>
        ${
          names.length === 1
            ? nothing
            : html`<ul aria-label="Columns">
                ${names.map((column, index) => this.#legend(column, index))}
              </ul>`
        }
      </div>
    </section>`;
  }

  /** At the cursor, or the newest. */
  #value(index: number): number {
    const feed = this.feed!;
    return this.row === null || !feed.rows ? feed.last(index) : (feed.values(index)[this.row] ?? NaN);
  }

  #legend(column: string, index: number) {
    const { stroke, dash } = columnStyle(this.theme, index);
    return html`<li>
      <button
        aria-pressed=${this.shown[index] ?? true}
        title=${column}
        @click=${() => (this.shown = this.shown.map((each, at) => (at === index ? !each : each)))}
      >
        <span
          class="swatch"
          style="border-color: ${stroke}; border-top-style: ${dash.length ? "dashed" : "solid"}"
        ></span>
        <span class="name">${column}</span>
        <span class="value">${formatValue(this.#value(index))}</span>
      </button>
    </li>`;
  }

  #message() {
    const feed = this.feed;
    if (!feed) return nothing;
    const missing = feed.known ? "" : feed.kind === "score" ? "Learning: no score yet" : "No values yet";
    return feedMessage(feed, feed.rows?.count ?? 0, missing);
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-trend-panel": TrendPanel;
  }
}
