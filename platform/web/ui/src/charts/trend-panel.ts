import { type CSSResultGroup, css, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { formatValue, outputTitle } from "../display/format";
import { segments } from "../display/segments";
import { readTheme, watchTheme } from "../display/theme";
import type { FeedObserver } from "../live/array-feed";
import { TrendFeed } from "../live/trend-feed";
import { live } from "../services";
import { FeedPanel } from "./feed-panel";
import { type TrendChart, columnStyle } from "./trend-chart";
import "./trend-chart";

/** Lines drawn at first. */
const FIRST_SHOWN = 8;
const LANE_PX = 38;
/** If the largest values of two columns differ by more than this factor, each column gets a lane. */
const FAR_APART = 25;
const LEGEND_INTERVAL_MS = 200;
const WINDOWS: readonly (readonly [string, number])[] = [
  ["1 min", 60],
  ["10 min", 600],
  ["all", 0],
];

/** An array of named columns, live: lines over time, and a legend with the newest values that switches lines. */
@customElement("wv-trend-panel")
export class TrendPanel extends FeedPanel<TrendFeed> {
  static override styles: CSSResultGroup = [
    FeedPanel.styles,
    css`
      .body {
        display: grid;
        grid-template-columns: minmax(0, 1fr) 220px;
        padding: 0 4px 8px;
      }
      .chart {
        position: relative;
        height: max(var(--lanes, 0px), var(--trend-height, clamp(170px, 25vh, 260px)));
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
      /* Each name next to its lane. */
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

  @state() private lanes = false;
  @state() private window_s = 600;
  @state() private shown: boolean[] = [];
  /** Row under the cursor; null for the newest. */
  @state() private row: number | null = null;
  @state() private theme = readTheme();
  @query("wv-trend-chart") private chart!: TrendChart;

  #scaled = false;
  #legend_due_ms = 0;
  #endWatch: () => void = () => {};

  override connectedCallback(): void {
    super.connectedCallback();
    this.#endWatch = watchTheme(() => (this.theme = readTheme()));
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#endWatch();
  }

  protected override open(reference: string, observer: FeedObserver): TrendFeed {
    this.#scaled = false;
    this.lanes = false;
    return new TrendFeed(live, reference, observer);
  }

  protected override feedChanged(): void {
    const names = this.feed!.names;
    if (names.length !== this.shown.length) this.shown = names.map((_, index) => index < FIRST_SHOWN);
    this.requestUpdate();
  }

  protected override draw(feed: TrendFeed): void {
    if (!this.#scaled && feed.row_count > 0) {
      this.#scaled = true;
      this.lanes = this.#farApart();
    }
    this.chart.draw();
    const now_ms = performance.now();
    if (now_ms < this.#legend_due_ms) return;
    this.#legend_due_ms = now_ms + LEGEND_INTERVAL_MS;
    this.requestUpdate();
  }

  /** Whether the columns' largest values are too different for one scale. */
  #farApart(): boolean {
    const sizes = this.feed!.names.map((_, index) =>
      this.feed!.values(index).reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0),
    ).filter((size) => size > 0);
    return sizes.length > 1 && Math.max(...sizes) / Math.min(...sizes) > FAR_APART;
  }

  protected override render() {
    const feed = this.feed;
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
        <h2>${outputTitle(this.reference)}</h2>
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
          title="Draw each line in its own lane, to compare shapes"
          @click=${() => (this.lanes = !this.lanes)}
        >
          Lanes
        </button>
        ${segments({
          label: "Time shown",
          options: WINDOWS.map(([text, window_s]) => [window_s === 0 && feed?.shortage(0) ? "newest" : text, window_s]),
          value: this.window_s,
          choose: (window_s) => (this.window_s = window_s),
          hidden: feed?.clock !== "event",
        })}
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
          ${this.message(this.#missing())}
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

  #missing(): string {
    if (!this.feed || this.feed.known) return "";
    return this.feed.kind === "score" ? "Learning: no score yet" : "No values yet";
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-trend-panel": TrendPanel;
  }
}
