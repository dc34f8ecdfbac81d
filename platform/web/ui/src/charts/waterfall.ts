import { type CSSResultGroup, type PropertyValues, css, html } from "lit";
import { customElement, property, query } from "lit/decorators.js";
import { formatClock, formatZone } from "../display/format";
import { type Theme, readTheme } from "../display/theme";
import type { LevelRange } from "../live/level-range";
import { type RowClock, chooseClock } from "../live/row-clock";
import type { SpectrumFeed } from "../live/spectrum-feed";
import { ChartElement } from "./chart-element";
import { type FrequencyRange, PLOT_LEFT_PX, PLOT_RIGHT_PX } from "./spectrum-chart";
import { tickDecimals, tickStep_s, timeTicks } from "./time-ticks";
import { WaterfallImage } from "./waterfall-image";

/** The frequency and the row under the pointer. */
export interface WaterfallPoint {
  readonly frequency_hz: number;
  readonly level_db: number;
  /** The row's time as text: of the event, in the signal, or the row's number. */
  readonly time: string;
}

const LABELS_APART_PX = 46;
/** Greatest height of a row, in CSS pixels. */
const MOST_ROW_PX = 4;

/**
 * The spectra of a feed as coloured rows, the newest at the top. Event `point` with a WaterfallPoint or
 * null. Arrow keys move the cursor.
 */
@customElement("wv-waterfall")
export class Waterfall extends ChartElement {
  static override styles: CSSResultGroup = [
    ChartElement.styles,
    css`
      canvas {
        position: absolute;
        inset: 0;
        width: 100%;
        height: 100%;
        cursor: crosshair;
        touch-action: pan-y;
      }
      canvas:focus-visible {
        outline: 2px solid var(--accent);
        outline-offset: -2px;
      }
    `,
  ];

  @property({ attribute: false }) feed: SpectrumFeed | null = null;
  @property({ attribute: false }) range: LevelRange = { low_db: -100, high_db: 0 };
  @property({ attribute: false }) zoom: FrequencyRange | null = null;
  @property() label = "Waterfall";
  @query("canvas") private canvas!: HTMLCanvasElement;

  readonly #image = new WaterfallImage();
  #theme: Theme = readTheme();
  #stale = true;
  /** In CSS pixels of the canvas; null if the pointer is outside the plot. */
  #pointer: { x: number; y: number } | null = null;
  /** Frequency under the pointer in the spectrum. */
  #marked_hz: number | null = null;

  protected override themeChanged(): void {
    this.#theme = readTheme();
    this.requestDraw();
  }

  protected override render() {
    return html`<canvas
      tabindex="0"
      role="img"
      aria-label=${this.label}
      data-testid="waterfall"
      data-rows="0"
      @pointermove=${this.#onPointer}
      @pointerdown=${this.#onPointer}
      @pointerleave=${() => this.#point(null)}
      @blur=${() => this.#point(null)}
      @keydown=${this.#onKey}
    ></canvas>`;
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has("feed") || changed.has("range") || changed.has("zoom")) this.#stale = true;
    super.updated(changed);
  }

  /** Paints all rows again: the feed has changed. */
  repaint(): void {
    this.#stale = true;
    this.requestDraw();
  }

  /** Marks a frequency with a line; null removes the line. */
  mark(frequency_hz: number | null): void {
    if (this.#marked_hz === frequency_hz) return;
    this.#marked_hz = frequency_hz;
    this.requestDraw();
  }

  get #ratio(): number {
    return this.canvas.width / Math.max(1, this.clientWidth);
  }

  /** Device pixels per row, whole: one CSS pixel, more if there are few rows. */
  get #row_px(): number {
    const least_px = Math.max(1, Math.round(this.#ratio));
    const rows = Math.max(1, this.feed?.history?.count ?? 1);
    return Math.min(MOST_ROW_PX * least_px, Math.max(least_px, Math.floor(this.canvas.height / rows)));
  }

  get #plot_px(): number {
    return Math.max(1, Math.round((this.clientWidth - PLOT_LEFT_PX - PLOT_RIGHT_PX) * this.#ratio));
  }

  get #shown(): FrequencyRange {
    return this.zoom ?? { low_hz: 0, high_hz: this.feed?.highest_hz ?? 1 };
  }

  protected override sizeChanged(width: number, height: number): void {
    if (!this.hasUpdated) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.#stale = true;
    this.draw();
  }

  override readonly draw = (): void => {
    const context = this.hasUpdated ? this.canvas.getContext("2d") : null;
    if (!context || this.canvas.width < 2) return;
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const history = this.feed?.history;
    if (!history) return;
    if (this.#stale) {
      const { low_hz, high_hz } = this.#shown;
      const step_hz = this.feed!.frequency_step_hz;
      this.#image.set(history, this.#plot_px, low_hz / step_hz, high_hz / step_hz, this.range);
      this.#stale = false;
    } else {
      this.#image.update();
    }
    this.canvas.dataset["rows"] = String(history.total);
    const left = Math.round(PLOT_LEFT_PX * this.#ratio);
    context.fillStyle = this.#theme.raised;
    context.fillRect(left, 0, this.#plot_px, this.canvas.height);
    const rows = Math.min(history.count, Math.ceil(this.canvas.height / this.#row_px));
    this.#image.drawOn(context, left, rows, this.#row_px);
    this.#drawTimes(context, left, rows);
    this.#drawCursor(context, left);
    if (this.#pointer) this.#report();
  };

  #clock(rows: number): RowClock {
    const history = this.feed!.history!;
    const span_s = rows > 1 ? history.time_s(0) - history.time_s(rows - 1) : Infinity;
    return chooseClock(rows, span_s, this.feed!.row_period_s);
  }

  #axisTime_s(clock: RowClock): (age: number) => number {
    const history = this.feed!.history!;
    if (clock === "event") return (age) => history.time_s(age);
    const period_s = clock === "signal" ? this.feed!.row_period_s! : 1;
    return (age) => history.rowNumber(age) * period_s;
  }

  #drawTimes(context: CanvasRenderingContext2D, left: number, rows: number): void {
    if (rows < 2) return;
    const ratio = this.#ratio;
    const clock = this.#clock(rows);
    const time_s = this.#axisTime_s(clock);
    const marks = (rows * this.#row_px) / ratio / LABELS_APART_PX;
    const step_s = tickStep_s(Math.abs(time_s(0) - time_s(rows - 1)), marks);
    const decimals = tickDecimals(step_s);
    context.font = this.#theme.font.replace("11px", `${11 * ratio}px`);
    context.fillStyle = this.#theme.muted;
    context.textAlign = "right";
    context.textBaseline = "middle";
    const zone_y = this.canvas.height - 8 * ratio;
    const lowest_y = clock === "event" ? zone_y - 14 * ratio : this.canvas.height - 6 * ratio;
    if (clock === "event") context.fillText(formatZone(time_s(0)), left - 8 * ratio, zone_y);
    for (const tick of timeTicks(rows, time_s, step_s, (LABELS_APART_PX / 2) * (ratio / this.#row_px))) {
      const y = (tick.age + 0.5) * this.#row_px;
      if (y < 6 * ratio || y > lowest_y) continue;
      context.fillRect(left - 4 * ratio, Math.round(y), 4 * ratio, Math.max(1, Math.round(ratio)));
      context.fillText(rowTimeText(clock, tick.time_s, decimals), left - 8 * ratio, y);
    }
  }

  #drawCursor(context: CanvasRenderingContext2D, left: number): void {
    const ratio = this.#ratio;
    const { low_hz, high_hz } = this.#shown;
    const x =
      this.#pointer !== null
        ? this.#pointer.x * ratio
        : this.#marked_hz !== null
          ? left + ((this.#marked_hz - low_hz) / (high_hz - low_hz)) * this.#plot_px
          : null;
    if (x === null) return;
    context.fillStyle = "rgb(255 255 255 / 70%)";
    context.fillRect(Math.round(x), 0, Math.max(1, Math.round(ratio)), this.canvas.height);
    if (this.#pointer) {
      context.fillRect(
        left,
        Math.round(this.#pointer.y * ratio),
        this.#plot_px,
        Math.max(1, Math.round(ratio)),
      );
    }
  }

  #point(pointer: { x: number; y: number } | null): void {
    this.#pointer = pointer;
    if (!pointer) this.dispatchEvent(new CustomEvent("point", { detail: null }));
    this.requestDraw();
  }

  /** Reports the row and the frequency under the pointer; rows move while the pointer rests. */
  #report(): void {
    const history = this.feed?.history;
    const pointer = this.#pointer!;
    const age = Math.floor((pointer.y * this.#ratio) / this.#row_px);
    if (!history || age >= history.count) {
      this.dispatchEvent(new CustomEvent("point", { detail: null }));
      return;
    }
    const { low_hz, high_hz } = this.#shown;
    const share = (pointer.x - PLOT_LEFT_PX) / Math.max(1, this.clientWidth - PLOT_LEFT_PX - PLOT_RIGHT_PX);
    const step_hz = this.feed!.frequency_step_hz;
    const bin = Math.min(
      history.bins - 1,
      Math.max(0, Math.round((low_hz + share * (high_hz - low_hz)) / step_hz)),
    );
    const clock = this.#clock(Math.min(history.count, Math.ceil(this.canvas.height / this.#row_px)));
    const detail: WaterfallPoint = {
      frequency_hz: bin * step_hz,
      level_db: history.levels(age)[bin]!,
      time: rowTimeText(clock, this.#axisTime_s(clock)(age), 3),
    };
    this.dispatchEvent(new CustomEvent("point", { detail }));
  }

  #onPointer = (event: PointerEvent): void => {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const inside = x >= PLOT_LEFT_PX && x <= this.clientWidth - PLOT_RIGHT_PX;
    this.#point(inside ? { x, y: Math.max(0, event.clientY - box.top) } : null);
  };

  #onKey = (event: KeyboardEvent): void => {
    if (event.key === "Escape") this.#point(null);
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const reach_px = event.shiftKey ? 20 : 2;
    const from = this.#pointer ?? { x: (this.clientWidth + PLOT_LEFT_PX) / 2, y: 0 };
    this.#point({
      x: Math.min(this.clientWidth - PLOT_RIGHT_PX, Math.max(PLOT_LEFT_PX, from.x + move[0]! * reach_px)),
      y: Math.min(this.clientHeight - 1, Math.max(0, from.y + move[1]! * reach_px)),
    });
  };
}

function rowTimeText(clock: RowClock, time_s: number, decimals: number): string {
  if (clock === "event") return formatClock(time_s, decimals);
  return clock === "signal" ? `${time_s.toFixed(decimals)} s` : `row ${Math.round(time_s)}`;
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-waterfall": Waterfall;
  }
}
