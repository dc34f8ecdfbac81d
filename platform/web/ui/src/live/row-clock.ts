// Which time the axis shows: normally the event time. All rows of a recording that is sent at once have nearly
// the same event time; then the axis shows the time within the signal, or row numbers.

import type { Attributes } from "./live";

export type RowClock = "event" | "signal" | "row";

/** Rows closer together than this share of their period did not arrive in real time. */
const BURST_SHARE = 0.2;
/** Without a period: rows closer together than this on average. */
const BURST_S = 1e-4;
const FEWEST_ROWS = 8;

/** Seconds between rows by the attributes of their array; null if they do not say. */
export function rowPeriod_s(attrs: Attributes): number | null {
  const rate_hz = Number(attrs["rate_hz"] ?? NaN);
  if (!(rate_hz > 0)) return null;
  for (const name of ["hop", "window"]) {
    const samples = attrs[name];
    if (typeof samples === "number" && samples > 0) return samples / rate_hz;
  }
  return 1 / rate_hz;
}

/** The clock for `count` rows whose event times span `span_s`. */
export function chooseClock(count: number, span_s: number, period_s: number | null): RowClock {
  if (count < FEWEST_ROWS) return "event";
  const least_s = period_s === null ? count * BURST_S : count * period_s * BURST_SHARE;
  if (span_s >= least_s) return "event";
  return period_s === null ? "row" : "signal";
}
