import { customElement, property } from "lit/decorators.js";
import uPlot from "uplot";
import { formatTick, formatZone } from "../display/format";
import type { Theme } from "../display/theme";
import type { RowClock } from "../live/row-clock";
import type { TrendFeed } from "../live/trend-feed";
import { laneRange, yRange } from "./scales";
import { STEPS_S } from "./time-ticks";
import { LINE_PX, UplotChart, axes } from "./uplot-chart";

const AXIS_PX = 58;
const SHORTEST_S = 10;
/** Charts of one page move their cursors together. */
const CURSOR_GROUP = "trends";
const DASHES: readonly (readonly number[])[] = [[], [6, 3], [2, 2]];

/** Colour and dash of column `index`. */
export function columnStyle(theme: Theme, index: number): { stroke: string; dash: number[] } {
  const { series } = theme;
  return {
    stroke: series[index % series.length]!,
    dash: [...DASHES[Math.floor(index / series.length) % DASHES.length]!],
  };
}

/**
 * The columns of a feed as lines over time. `lanes`: each line has its own lane and scale, to compare shapes
 * of quantities of different sizes. Event `point` with the row under the cursor, or null.
 */
@customElement("wv-trend-chart")
export class TrendChart extends UplotChart {
  @property({ attribute: false }) feed: TrendFeed | null = null;
  @property({ attribute: false }) shown: readonly boolean[] = [];
  @property({ type: Boolean }) lanes = false;
  /** Seconds of the newest data that are shown; 0 for all data. */
  @property({ type: Number }) window_s = 0;

  protected override readonly built_for = ["feed", "lanes", "shown"];
  protected override readonly test_id = "trend";

  #clock: RowClock = "event";
  #columns = 0;

  override readonly draw = (): void => {
    const { feed } = this;
    if (!feed?.rows) return;
    if (!this.chart || feed.names.length !== this.#columns || feed.clock !== this.#clock) this.build();
    if (!this.chart) return;
    const [from, to] = this.#visibleRows();
    const part = (values: Float64Array): Float64Array => values.subarray(from, to);
    this.chart.setData([
      part(feed.places(this.#clock)),
      ...feed.names.map((_, index) => (this.#isShown(index) ? part(feed.values(index)) : [])),
    ]);
  };

  #isShown(index: number): boolean {
    return this.shown[index] ?? true;
  }

  /** First and last row of the window: rows outside cost nothing. */
  #visibleRows(): [number, number] {
    const places = this.feed!.places(this.#clock);
    const count = places.length;
    if (this.window_s === 0 || this.#clock !== "event" || count === 0) return [0, count];
    const oldest_s = places[count - 1]! - this.window_s;
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (places[middle]! < oldest_s) low = middle + 1;
      else high = middle;
    }
    // One more to the left, so that the line reaches the edge.
    return [Math.max(0, low - 1), count];
  }

  #xRange(low: number | null, high: number | null): uPlot.Range.MinMax {
    if (low === null || high === null) return [0, 1];
    if (this.window_s > 0 && this.#clock === "event") {
      // Data younger than the window fill the width.
      return [Math.max(high - this.window_s, Math.min(low, high - SHORTEST_S)), high];
    }
    return high > low ? [low, high] : [low - 0.5, high + 0.5];
  }

  protected override prepare(): boolean {
    const { feed } = this;
    if (!feed?.rows) return false;
    this.#clock = feed.clock;
    this.#columns = feed.names.length;
    return true;
  }

  protected override emptyData(): uPlot.AlignedData {
    return [[], ...this.feed!.names.map(() => [])];
  }

  protected override options(theme: Theme): Omit<uPlot.Options, "width" | "height"> {
    const names = this.feed!.names;
    const range = (_: uPlot, low: number | null, high: number | null): uPlot.Range.MinMax =>
      yRange(low, high);
    const scales: uPlot.Scales = {
      x: { time: this.#clock === "event", range: (_, low, high) => this.#xRange(low, high) },
      y: { range },
    };
    const shown = names.flatMap((_, index) => (this.#isShown(index) ? [index] : []));
    if (this.lanes) {
      shown.forEach((index, lane) => {
        scales[`y${index}`] = { range: (_, low, high) => laneRange(yRange(low, high), lane, shown.length) };
      });
    }
    const unit = { event: "", signal: " s", row: "" }[this.#clock];
    return {
      padding: [this.lanes ? 4 : 10, 14, 0, this.lanes ? 14 : 0],
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { x: false, y: false },
        ...(this.#clock === "event" ? { sync: { key: CURSOR_GROUP, setSeries: false } } : {}),
      },
      scales,
      axes: axes(
        theme,
        this.#clock === "event"
          ? { values: TIME_LABELS, incrs: [...STEPS_S] }
          : { values: (_, splits) => splits.map((place) => `${Number(place.toPrecision(6))}${unit}`) },
        {
          size: AXIS_PX,
          show: !this.lanes,
          values: (_, splits) => splits.map((value) => formatTick(value)),
        },
      ),
      series: [
        {},
        ...names.map((_, index): uPlot.Series => {
          const { stroke, dash } = columnStyle(theme, index);
          return {
            stroke,
            width: LINE_PX,
            scale: this.lanes && this.#isShown(index) ? `y${index}` : "y",
            show: this.#isShown(index),
            points: { show: false },
            ...(dash.length ? { dash } : {}),
          };
        }),
      ],
      hooks: {
        drawAxes: [
          (chart) => {
            if (this.lanes) drawLanes(chart, shown.length, theme);
            else if (this.#clock === "event") drawZone(chart, theme);
          },
        ],
        setCursor: [
          (chart) => {
            const { left, idx } = chart.cursor;
            const row = left === undefined || left < 0 || idx === null || idx === undefined ? null : idx;
            this.dispatchEvent(
              new CustomEvent("point", { detail: row === null ? null : row + this.#visibleRows()[0] }),
            );
          },
        ],
      },
    };
  }
}

/** Lines between the lanes. */
function drawLanes(chart: uPlot, lanes: number, theme: Theme): void {
  const { left, top, width, height } = chart.bbox;
  chart.ctx.fillStyle = theme.grid;
  for (let lane = 1; lane < lanes; lane++) {
    chart.ctx.fillRect(
      left,
      Math.round(top + (height * lane) / lanes),
      width,
      Math.max(1, Math.round(uPlot.pxRatio)),
    );
  }
}

/** The time zone, once: at the left end of the time axis. */
function drawZone(chart: uPlot, theme: Theme): void {
  const newest_s = chart.scales["x"]?.max;
  if (newest_s === null || newest_s === undefined) return;
  const { ctx, bbox } = chart;
  const ratio = uPlot.pxRatio;
  ctx.save();
  ctx.font = theme.font.replace("11px", `${11 * ratio}px`);
  ctx.fillStyle = theme.muted;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(formatZone(newest_s), 4 * ratio, bbox.top + bbox.height + 17 * ratio);
  ctx.restore();
}

/** 24-hour times; uPlot's defaults have AM and PM. */
const TIME_LABELS: uPlot.Axis.Values = [
  [3600 * 24, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
  [3600, "{HH}:{mm}", "\n{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
  [60, "{HH}:{mm}", null, null, null, null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
  [0.001, "{HH}:{mm}:{ss}.{fff}", null, null, null, null, null, null, 1],
];

declare global {
  interface HTMLElementTagNameMap {
    "wv-trend-chart": TrendChart;
  }
}
