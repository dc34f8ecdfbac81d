// What the uPlot charts have in common.

import { css, unsafeCSS } from "lit";
import uPlot from "uplot";
import uplotCss from "uplot/dist/uPlot.min.css?inline";
import type { Theme } from "../display/theme";

/** Of one pixel exactly: without a graphics card anything wider costs several times as much to draw. */
export const LINE_PX = 1;

export const chartStyles = css`
  ${unsafeCSS(uplotCss)}
  :host {
    display: block;
    position: relative;
    min-width: 0;
    overflow: hidden;
    contain: layout paint;
  }
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
`;

/** Axis colours and type of the theme. */
export function axisStyle(theme: Theme): Partial<uPlot.Axis> {
  return {
    stroke: theme.muted,
    font: theme.font,
    grid: { stroke: theme.grid, width: 1 },
    ticks: { show: false },
    gap: 5,
  };
}

/** Keeps `chart` as large as `host`; what it returns ends that. */
export function followSize(host: HTMLElement, resized: (width: number, height: number) => void): () => void {
  const observer = new ResizeObserver(() => {
    const { clientWidth, clientHeight } = host;
    if (clientWidth > 0 && clientHeight > 0) resized(clientWidth, clientHeight);
  });
  observer.observe(host);
  return () => observer.disconnect();
}
