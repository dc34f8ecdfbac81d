import type { PropertyValues } from "lit";
import { customElement, property } from "lit/decorators.js";
import type uPlot from "uplot";
import { formatTick, frequencyUnit } from "../display/format";
import { type Theme, translucent } from "../display/theme";
import { toDecibel } from "../live/level-history";
import type { LevelRange } from "../live/level-range";
import type { SpectrumFeed } from "../live/spectrum-feed";
import { niceCeiling } from "./scales";
import { LINE_PX, UplotChart, axes } from "./uplot-chart";

export type LevelScale = "decibel" | "log" | "linear";

export interface FrequencyRange {
  readonly low_hz: number;
  readonly high_hz: number;
}

/** Width of the level axis, and of the waterfall's time axis below it: both plots share their left edge. */
export const PLOT_LEFT_PX = 62;
export const PLOT_RIGHT_PX = 24;
/** Most points that are drawn; with more bins each point is the strongest of several. */
const MAX_POINTS = 4096;

/**
 * The newest spectrum of a feed, its average and its peaks. Dragging zooms. Events: `zoom` with a
 * FrequencyRange or null, `hover` with a frequency in Hz or null.
 */
@customElement("wv-spectrum-chart")
export class SpectrumChart extends UplotChart {
  @property({ attribute: false }) feed: SpectrumFeed | null = null;
  @property() scale: LevelScale = "decibel";
  @property({ type: Boolean }) average = false;
  @property({ type: Boolean }) peak = false;
  @property({ attribute: false }) range: LevelRange = { low_db: -100, high_db: 0 };
  @property({ attribute: false }) zoom: FrequencyRange | null = null;

  protected override readonly built_for = ["feed", "scale", "average", "peak"];
  protected override readonly test_id = "spectrum";

  readonly #frequencies = new Float64Array(MAX_POINTS);
  readonly #traces = [
    new Float64Array(MAX_POINTS),
    new Float64Array(MAX_POINTS),
    new Float64Array(MAX_POINTS),
  ] as const;
  /** Which bins the points show: `pool` bins each, from `first` to `last`. */
  #points = { first: 0, last: 0, pool: 1, count: 0 };
  #bins = 0;
  #step_hz = 0;
  #linear_high = 0;

  protected override updated(changed: PropertyValues<this>): void {
    if (this.chart && changed.has("zoom")) this.#showZoom();
    super.updated(changed);
  }

  override readonly draw = (): void => {
    const history = this.feed?.history;
    if (!history) return;
    if (history.bins !== this.#bins || this.feed!.frequency_step_hz !== this.#step_hz) this.build();
    if (!this.chart) return;
    const [now, average, peak] = this.#traces;
    const empty = history.count === 0;
    const decibel = this.scale === "decibel";
    const linear = (level_db: number): number => 10 ** (level_db / 10);
    if (!empty) this.#pool(history.levels(0), now, decibel ? identity : linear);
    if (this.average) this.#pool(this.feed!.average, average, decibel ? toDecibel : identity);
    if (this.peak) this.#pool(this.feed!.peak_db, peak, decibel ? identity : linear);
    if (this.scale === "linear" && !empty) this.#followLinear(this.peak ? peak : now);
    this.chart.setData(empty ? this.emptyData() : this.#data(), false);
    this.chart.redraw(true, false);
  };

  /** The strongest value of each point's bins, through `shown`. */
  #pool(values: Float32Array, points: Float64Array, shown: (value: number) => number): void {
    const { first, last, pool, count } = this.#points;
    for (let point = 0; point < count; point++) {
      const from = first + point * pool;
      const to = Math.min(from + pool - 1, last);
      let highest = values[from]!;
      for (let bin = from + 1; bin <= to; bin++) if (values[bin]! > highest) highest = values[bin]!;
      points[point] = shown(highest);
    }
  }

  /** Spreads the points over the bins that are shown. */
  #layPoints(): void {
    const [low_hz, high_hz] = this.#xRange() as [number, number];
    const first = Math.max(0, Math.floor(low_hz / this.#step_hz) - 1);
    const last = Math.min(this.#bins - 1, Math.ceil(high_hz / this.#step_hz) + 1);
    const pool = Math.ceil((last - first + 1) / MAX_POINTS);
    const count = Math.ceil((last - first + 1) / pool);
    this.#points = { first, last, pool, count };
    for (let point = 0; point < count; point++) {
      this.#frequencies[point] = (first + point * pool + (pool - 1) / 2) * this.#step_hz;
    }
  }

  /** Puts the cursor at a frequency, without a `hover` event. */
  pointAt(frequency_hz: number | null): void {
    const chart = this.chart;
    if (!chart) return;
    const left = frequency_hz === null ? -10 : chart.valToPos(frequency_hz, "x");
    chart.setCursor({ left, top: frequency_hz === null ? -10 : 0 }, false);
  }

  protected override emptyData(): uPlot.AlignedData {
    return [this.#shown(this.#frequencies), [], [], []];
  }

  #data(): uPlot.AlignedData {
    const [now, average, peak] = this.#traces;
    return [
      this.#shown(this.#frequencies),
      this.#shown(now),
      this.average ? this.#shown(average) : [],
      this.peak ? this.#shown(peak) : [],
    ];
  }

  #shown(values: Float64Array): Float64Array {
    return values.subarray(0, this.#points.count);
  }

  /** The upper end in linear units: grows at once, shrinks when most of it is empty. */
  #followLinear(values: Float64Array): void {
    let highest = 0;
    for (let point = 0; point < this.#points.count; point++) {
      const value = values[point]!;
      if (value > highest && value < Infinity) highest = value;
    }
    if (highest > this.#linear_high || highest < this.#linear_high * 0.25)
      this.#linear_high = niceCeiling(highest * 1.05);
  }

  #yRange(): uPlot.Range.MinMax {
    const { low_db, high_db } = this.range;
    if (this.scale === "decibel") return [low_db, high_db];
    if (this.scale === "log") return [10 ** (low_db / 10), 10 ** (high_db / 10)];
    return [0, this.#linear_high || 1];
  }

  #xRange(): uPlot.Range.MinMax {
    return this.zoom ? [this.zoom.low_hz, this.zoom.high_hz] : [0, this.feed?.highest_hz ?? 1];
  }

  #showZoom(): void {
    this.#layPoints();
    const [min, max] = this.#xRange() as [number, number];
    this.chart?.setScale("x", { min, max });
  }

  protected override prepare(): boolean {
    const { feed } = this;
    if (!feed?.history) return false;
    this.#bins = feed.history.bins;
    this.#step_hz = feed.frequency_step_hz;
    this.#layPoints();
    this.#linear_high = 0;
    return true;
  }

  protected override options(theme: Theme): Omit<uPlot.Options, "width" | "height"> {
    const [accent, second, third] = theme.series as [string, string, string];
    return {
      padding: [10, PLOT_RIGHT_PX, 0, 0],
      cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      scales: {
        x: { time: false, range: () => this.#xRange() },
        y: { distr: this.scale === "log" ? 3 : 1, range: () => this.#yRange() },
      },
      axes: axes(
        theme,
        {
          values: (_, splits) => {
            const { unit, divisor } = frequencyUnit(this.#xRange()[1] ?? 1);
            return splits.map((hertz) =>
              hertz === 0 ? "0" : `${Number((hertz / divisor).toPrecision(6))} ${unit}`,
            );
          },
        },
        {
          size: PLOT_LEFT_PX,
          values: (_, splits) => splits.map((level) => (level === null ? "" : formatTick(level))),
        },
      ),
      series: [
        {},
        {
          stroke: accent,
          width: LINE_PX,
          fill: translucent(accent, 0.14),
          // Down to the floor: levels in dB lie below zero.
          fillTo: (chart) => chart.scales["y"]!.min ?? 0,
          points: { show: false },
        },
        { stroke: third, width: LINE_PX, points: { show: false }, show: this.average },
        { stroke: second, width: LINE_PX, points: { show: false }, show: this.peak },
      ],
      hooks: {
        setSelect: [
          (chart) => {
            const { left, width } = chart.select;
            if (width < 4) return;
            const zoom = { low_hz: chart.posToVal(left, "x"), high_hz: chart.posToVal(left + width, "x") };
            chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            this.dispatchEvent(new CustomEvent("zoom", { detail: zoom }));
          },
        ],
        setCursor: [
          (chart) => {
            const left = chart.cursor.left ?? -10;
            this.dispatchEvent(
              new CustomEvent("hover", { detail: left < 0 ? null : chart.posToVal(left, "x") }),
            );
          },
        ],
        ready: [
          (chart) =>
            chart.over.addEventListener("dblclick", () =>
              this.dispatchEvent(new CustomEvent("zoom", { detail: null })),
            ),
        ],
      },
    };
  }
}

function identity(value: number): number {
  return value;
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-spectrum-chart": SpectrumChart;
  }
}
