import { LitElement, type PropertyValues, css, html } from "lit";
import { customElement, property, query } from "lit/decorators.js";
import uPlot from "uplot";
import { LINE_PX, axisStyle, chartStyles, followSize } from "./chart";
import { cancelDraw, requestDraw } from "./draw-loop";
import { formatTick, formatZone } from "../display/format";
import type { RowClock } from "../live/row-clock";
import { laneRange, yRange } from "./scales";
import { type Theme, readTheme, watchTheme } from "../display/theme";
import { STEPS_S } from "./time-ticks";
import type { TrendFeed } from "../live/trend-feed";

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
 * The columns of a feed as lines over time. `lanes`: each line has a lane and a scale of its own, so that
 * shapes can be compared where sizes cannot. Event `point` with the row pointed at, or null.
 */
@customElement("wv-trend-chart")
export class TrendChart extends LitElement {
  static override styles = [
    chartStyles,
    css`
      :host {
        height: 100%;
      }
    `,
  ];

  @property({ attribute: false }) feed: TrendFeed | null = null;
  @property({ attribute: false }) shown: readonly boolean[] = [];
  @property({ type: Boolean }) lanes = false;
  /** Seconds of the newest data that are shown; 0 for all there is. */
  @property({ type: Number }) window_s = 0;
  @property() label = "Trend";

  @query("div") private plot!: HTMLElement;

  #chart: uPlot | null = null;
  #clock: RowClock = "event";
  #columns = 0;
  #ends: (() => void)[] = [];

  override connectedCallback(): void {
    super.connectedCallback();
    this.#ends = [
      followSize(this, (width, height) =>
        this.#chart ? this.#chart.setSize({ width, height }) : this.#build(),
      ),
      watchTheme(() => this.#build()),
    ];
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    for (const end of this.#ends) end();
    cancelDraw(this.draw);
    this.#chart?.destroy();
    this.#chart = null;
  }

  protected override render() {
    return html`<div></div>`;
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has("feed") || changed.has("lanes") || changed.has("shown") || changed.has("label"))
      this.#build();
    requestDraw(this.draw);
  }

  draw = (): void => {
    const { feed } = this;
    if (!feed?.rows) return;
    if (!this.#chart || feed.names.length !== this.#columns || feed.clock !== this.#clock) this.#build();
    if (!this.#chart) return;
    const [from, to] = this.#visibleRows();
    const part = (values: Float64Array): Float64Array => values.subarray(from, to);
    this.#chart.setData([
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

  #build(): void {
    const { feed } = this;
    if (!feed?.rows || this.clientWidth === 0) return;
    this.#clock = feed.clock;
    this.#columns = feed.names.length;
    this.#chart?.destroy();
    const empty: number[][] = [[], ...feed.names.map(() => [])];
    this.#chart = new uPlot(this.#options(), empty as uPlot.AlignedData, this.plot);
    const canvas = this.#chart.ctx.canvas;
    canvas.dataset["testid"] = "trend";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", this.label);
    requestDraw(this.draw);
  }

  #options(): uPlot.Options {
    const theme = readTheme();
    const axis = axisStyle(theme);
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
      width: this.clientWidth,
      height: this.clientHeight,
      padding: [this.lanes ? 4 : 10, 14, 0, this.lanes ? 14 : 0],
      legend: { show: false },
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { x: false, y: false },
        ...(this.#clock === "event" ? { sync: { key: CURSOR_GROUP, setSeries: false } } : {}),
      },
      scales,
      axes: [
        {
          ...axis,
          size: 28,
          space: 64,
          ...(this.#clock === "event"
            ? { values: TIME_LABELS, incrs: [...STEPS_S] }
            : { values: (_, splits) => splits.map((place) => `${Number(place.toPrecision(6))}${unit}`) }),
        },
        {
          ...axis,
          size: AXIS_PX,
          space: 34,
          show: !this.lanes,
          values: (_, splits) => splits.map((value) => formatTick(value)),
        },
      ],
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

/** A line between each lane and the next. */
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

/** The zone of the times, once: below the values, beside the times. */
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

/** 24-hour times; uPlot's own are in the American form. */
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
