// The theme's colours for canvases, which CSS does not style.

export interface Theme {
  readonly raised: string;
  readonly muted: string;
  readonly grid: string;
  readonly font: string;
  readonly series: readonly string[];
}

const SERIES_COUNT = 8;

export function readTheme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string): string => style.getPropertyValue(name).trim();
  return {
    raised: read("--raised"),
    muted: read("--muted"),
    grid: read("--grid"),
    font: `11px ${read("--sans")}`,
    series: Array.from({ length: SERIES_COUNT }, (_, index) => read(`--series-${index + 1}`)),
  };
}

/** Calls `changed` when the preference for light or dark changes; returns a function that ends this. */
export function watchTheme(changed: () => void): () => void {
  const query = matchMedia("(prefers-color-scheme: dark)");
  query.addEventListener("change", changed);
  return () => query.removeEventListener("change", changed);
}

/** `color` (#rrggbb) with an opacity in 0…1. */
export function translucent(color: string, opacity: number): string {
  return `${color}${Math.round(opacity * 255)
    .toString(16)
    .padStart(2, "0")}`;
}
