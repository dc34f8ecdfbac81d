import { type CSSResultGroup, type PropertyValues, css, html, unsafeCSS } from "lit";
import { property, query } from "lit/decorators.js";
import uPlot from "uplot";
import uplotCss from "uplot/dist/uPlot.min.css?inline";
import { type Theme, readTheme } from "../display/theme";
import { ChartElement } from "./chart-element";

/** One pixel exactly: without a graphics card wider lines take several times as long to draw. */
export const LINE_PX = 1;

/** A chart that uPlot draws. uPlot takes some options only when it is made, so the chart is built again for them. */
export abstract class UplotChart extends ChartElement {
  static override styles: CSSResultGroup = [
    ChartElement.styles,
    css`
      ${unsafeCSS(uplotCss)}
      .uplot {
        position: absolute;
        inset: 0;
        font-family: var(--sans);
      }
      .u-select {
        background: color-mix(in srgb, var(--accent) 18%, transparent);
      }
      .u-hz .u-cursor-x,
      .u-hz .u-cursor-y {
        border-color: var(--muted);
      }
    `,
  ];

  /** The accessible name. */
  @property() label = "";
  @query("div") private plot!: HTMLElement;

  protected chart: uPlot | null = null;
  /** Properties whose change needs a new chart. */
  protected abstract readonly built_for: readonly string[];
  protected abstract readonly test_id: string;

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.chart?.destroy();
    this.chart = null;
  }

  protected override render() {
    return html`<div></div>`;
  }

  protected override updated(changed: PropertyValues): void {
    if (changed.has("label") || this.built_for.some((name) => changed.has(name))) this.build();
    super.updated(changed);
  }

  protected override sizeChanged(width: number, height: number): void {
    if (this.chart) this.chart.setSize({ width, height });
    else this.build();
  }

  protected override themeChanged(): void {
    this.build();
  }

  /** Replaces the chart; does nothing while the feed has no layout or the element no size. */
  protected build(): void {
    if (this.clientWidth === 0 || !this.prepare()) return;
    this.chart?.destroy();
    this.chart = new uPlot(
      { width: this.clientWidth, height: this.clientHeight, legend: { show: false }, ...this.options(readTheme()) },
      this.emptyData(),
      this.plot,
    );
    const canvas = this.chart.ctx.canvas;
    canvas.dataset["testid"] = this.test_id;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", this.label);
    this.requestDraw();
  }

  /** Stores the feed's layout for `options` and the data; false if the feed has none. */
  protected abstract prepare(): boolean;
  protected abstract options(theme: Theme): Omit<uPlot.Options, "width" | "height">;
  /** The axes without any lines. */
  protected abstract emptyData(): uPlot.AlignedData;
}

/** The axis at the bottom, and the one on the left. */
export function axes(theme: Theme, x: uPlot.Axis, y: uPlot.Axis): uPlot.Axis[] {
  const style: uPlot.Axis = {
    stroke: theme.muted,
    font: theme.font,
    grid: { stroke: theme.grid, width: 1 },
    ticks: { show: false },
    gap: 5,
  };
  return [
    { ...style, size: 28, space: 64, ...x },
    { ...style, space: 34, ...y },
  ];
}
