import { type CSSResultGroup, css, html, nothing } from "lit";
import { customElement, query, state } from "lit/decorators.js";
import { formatDecibel, formatDuration, formatFrequency, outputTitle } from "../display/format";
import { segments } from "../display/segments";
import type { FeedObserver } from "../live/array-feed";
import type { LevelRange } from "../live/level-range";
import { SpectrumFeed, type SpectrumPoint } from "../live/spectrum-feed";
import { live } from "../services";
import "./color-scale";
import { FeedPanel } from "./feed-panel";
import { type FrequencyRange, type LevelScale, PLOT_LEFT_PX, type SpectrumChart } from "./spectrum-chart";
import "./spectrum-chart";
import type { Waterfall, WaterfallPoint } from "./waterfall";
import "./waterfall";

const RANGE_INTERVAL_MS = 500;
const WATERFALL_LABEL =
  "Waterfall, frequency to the right, time downwards, level as colour, arrow keys move the cursor: ";
const SCALES: readonly (readonly [string, LevelScale])[] = [
  ["dB", "decibel"],
  ["log", "log"],
  ["lin", "linear"],
];

/** A spectrum array, live: the newest spectrum, and the waterfall below it on the same frequency axis. */
@customElement("wv-spectrum-panel")
export class SpectrumPanel extends FeedPanel<SpectrumFeed> {
  static override styles: CSSResultGroup = [
    FeedPanel.styles,
    css`
      .panel {
        display: flex;
        flex-direction: column;
        height: 100%;
      }
      .charts {
        position: relative;
        display: flex;
        flex: 1;
        flex-direction: column;
        padding: 0 4px;
      }
      wv-spectrum-chart {
        flex: none;
        height: clamp(170px, 26vh, 300px);
      }
      wv-waterfall {
        flex: 1;
        height: clamp(220px, calc(100dvh - 572px), 512px);
        min-height: clamp(220px, calc(100dvh - 572px), 512px);
      }
      footer {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 6px 14px;
        padding: 8px 14px 10px calc(var(--left) + 4px);
        min-height: 46px;
      }
      wv-color-scale {
        flex: 1 1 250px;
        max-width: 400px;
      }
      output {
        flex: 1 1 230px;
        min-height: 20px;
        font-variant-numeric: tabular-nums;
        text-align: right;
        white-space: nowrap;
      }
      .unit {
        position: absolute;
        z-index: 1;
        top: 2px;
        right: 32px;
        padding: 0 5px;
        border-radius: 4px;
        background: color-mix(in srgb, var(--surface) 75%, transparent);
        color: var(--muted);
        font-size: 11px;
        pointer-events: none;
      }
      .swatch {
        width: 12px;
        height: 2px;
        border-radius: 1px;
      }
      .pause {
        width: 34px;
        padding: 0;
        justify-content: center;
      }
      .pause svg {
        width: 12px;
        height: 12px;
        fill: currentColor;
      }
      @container (max-width: 760px) {
        .about {
          display: none;
        }
      }
      @media (max-width: 760px) {
        footer {
          padding-left: 14px;
        }
        output {
          text-align: left;
        }
      }
    `,
  ];

  @state() private scale: LevelScale = "decibel";
  @state() private average = false;
  @state() private peak = false;
  @state() private zoom: FrequencyRange | null = null;
  @state() private range: LevelRange = { low_db: -100, high_db: 0 };
  @state() private auto = true;
  @state() private rate_hz = 0;
  @query("wv-spectrum-chart") private chart!: SpectrumChart;
  @query("wv-waterfall") private waterfall!: Waterfall;
  @query("output") private readout!: HTMLOutputElement;

  #range_due_ms = 0;
  #point: WaterfallPoint | null = null;
  #hover_hz: number | null = null;

  protected override open(reference: string, observer: FeedObserver): SpectrumFeed {
    this.zoom = null;
    this.auto = true;
    return new SpectrumFeed(live, reference, observer);
  }

  protected override feedChanged(): void {
    this.requestUpdate();
    this.waterfall?.repaint();
  }

  protected override draw(feed: SpectrumFeed): void {
    const now_ms = performance.now();
    if (now_ms >= this.#range_due_ms) {
      this.#range_due_ms = now_ms + RANGE_INTERVAL_MS;
      const changed = feed.range.update();
      if (this.auto && (changed || this.range !== feed.range.range)) this.range = feed.range.range;
      this.rate_hz = this.#rowRate_hz();
    }
    this.chart.draw();
    this.waterfall.draw();
    this.#showReadout();
  }

  /** Rows per second over the newest rows, to two digits. */
  #rowRate_hz(): number {
    const history = this.feed?.history;
    if (!history || history.count < 2) return 0;
    const reach = Math.min(history.count - 1, 100);
    const rows = history.rowNumber(0) - history.rowNumber(reach);
    const rate_hz = rows / (history.time_s(0) - history.time_s(reach));
    return Number.isFinite(rate_hz) && rate_hz < 1e5 ? Number(rate_hz.toPrecision(2)) : 0;
  }

  /** Bypasses Lit: the readout changes with every drawn frame. */
  #showReadout(): void {
    const feed = this.feed!;
    const { low_hz, high_hz } = this.zoom ?? { low_hz: 0, high_hz: feed.highest_hz };
    const shown: [string, SpectrumPoint | null] = this.#point
      ? [`${this.#point.time} ·`, this.#point]
      : this.#hover_hz !== null
        ? ["now ·", feed.level(this.#hover_hz)]
        : ["Peak", feed.strongest(low_hz, high_hz)];
    const [what, point] = shown;
    if (!point) return;
    const text = `${what} ${formatFrequency(point.frequency_hz)} · ${formatDecibel(point.level_db)}`;
    if (this.readout.textContent !== text) this.readout.textContent = text;
  }

  protected override render() {
    const feed = this.feed;
    return html`<section
      class="panel"
      aria-label="Spectrum ${this.reference}"
      style="--left: ${PLOT_LEFT_PX}px"
    >
      <header>
        <h2>${outputTitle(this.reference)}</h2>
        <span class="about">${this.#about()}</span>
        <span class="spring"></span>
        <button
          class="button"
          style=${this.zoom ? "" : "visibility: hidden"}
          @click=${() => (this.zoom = null)}
        >
          Reset zoom
        </button>
        ${feed && feed.channels > 1 ? this.#channelField(feed) : nothing}
        ${segments({
          label: "Level scale",
          options: SCALES,
          value: this.scale,
          choose: (scale) => (this.scale = scale),
          test_id: "level-scale",
        })}
        <button class="button" aria-pressed=${this.average} @click=${() => (this.average = !this.average)}>
          <span class="swatch" style="background: var(--series-3)"></span>Average
        </button>
        <button class="button" aria-pressed=${this.peak} @click=${this.#togglePeak}>
          <span class="swatch" style="background: var(--series-2)"></span>Peaks
        </button>
        <button
          class="button pause"
          aria-label="Pause"
          title=${feed?.paused ? "Resume" : "Pause"}
          aria-pressed=${feed?.paused ?? false}
          @click=${this.#togglePause}
          data-testid="pause"
        >
          <svg viewBox="0 0 12 12" aria-hidden="true">
            <path d=${feed?.paused ? "M2.5 1v10l8-5z" : "M2 1h3v10H2zM7 1h3v10H7z"} />
          </svg>
        </button>
      </header>
      <div class="charts">
        <wv-spectrum-chart
          .feed=${feed}
          .scale=${this.scale}
          .range=${this.range}
          .zoom=${this.zoom}
          ?average=${this.average}
          ?peak=${this.peak}
          label="Live spectrum of ${this.reference}"
          @zoom=${this.#onZoom}
          @hover=${this.#onHover}
        ></wv-spectrum-chart>
        <wv-waterfall
          .feed=${feed}
          .range=${this.range}
          .zoom=${this.zoom}
          label=${WATERFALL_LABEL + this.reference}
          @point=${this.#onPoint}
        ></wv-waterfall>
        ${
          feed?.history
            ? html`<span class="unit">${this.scale === "decibel" ? "dB re " : ""}${feed.power_unit}</span>`
            : nothing
        }
        ${this.message()}
      </div>
      <footer>
        <wv-color-scale
          .range=${this.range}
          ?auto=${this.auto}
          @range=${(event: CustomEvent<LevelRange>) => this.#setRange(event.detail)}
          @auto=${this.#toggleAuto}
        ></wv-color-scale>
        <output data-testid="readout"></output>
      </footer>
    </section>`;
  }

  #about(): string {
    const feed = this.feed;
    if (!feed?.history) return "";
    const parts = [`${feed.bins} bins of ${formatFrequency(feed.frequency_step_hz)}`];
    if (this.rate_hz)
      parts.push(
        this.rate_hz >= 1 ? `${this.rate_hz} rows/s` : `a row every ${formatDuration(1 / this.rate_hz)}`,
      );
    return parts.join(" · ");
  }

  #channelField(feed: SpectrumFeed) {
    return html`<select
      class="field"
      aria-label="Channel"
      data-testid="channel"
      @change=${(event: Event) => {
        feed.choose(Number((event.target as HTMLSelectElement).value));
        this.feedChanged();
      }}
    >
      ${Array.from(
        { length: feed.channels },
        (_, channel) =>
          html`<option value=${channel} ?selected=${channel === feed.channel}>Ch ${channel + 1}</option>`,
      )}
    </select>`;
  }

  #togglePeak = (): void => {
    this.feed?.resetPeak();
    this.peak = !this.peak;
  };

  #togglePause = (): void => {
    if (this.feed?.paused) this.feed.start();
    else this.feed?.stop();
    this.requestUpdate();
  };

  #toggleAuto = (): void => {
    this.auto = !this.auto;
    if (this.auto && this.feed) this.range = this.feed.range.range;
  };

  #setRange(range: LevelRange): void {
    this.range = range;
    this.auto = false;
  }

  #onZoom = (event: CustomEvent<FrequencyRange | null>): void => {
    this.zoom = event.detail;
  };

  #onHover = (event: CustomEvent<number | null>): void => {
    this.#hover_hz = event.detail;
    this.waterfall.mark(event.detail);
    this.requestDraw();
  };

  #onPoint = (event: CustomEvent<WaterfallPoint | null>): void => {
    this.#point = event.detail;
    this.chart.pointAt(event.detail?.frequency_hz ?? null);
    this.#showReadout();
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-spectrum-panel": SpectrumPanel;
  }
}
