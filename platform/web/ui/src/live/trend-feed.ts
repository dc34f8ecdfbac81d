// The live rows of an array of named columns (features, scores, values), ready to draw.

import { formatCount } from "../display/format";
import { ArrayFeed } from "./array-feed";
import type { Numbers } from "./dtype";
import { type Frame, frameTimes_s, rowNumber } from "./frame";
import type { Attributes, Layout, SubscribeOptions } from "./live";
import { type RowClock, chooseClock, rowPeriod_s } from "./row-clock";
import { SlidingColumns, windowRows } from "./sliding-columns";

/** Columns taken of each row; a row has this many at most, others are not drawn. */
export const MAX_COLUMNS = 64;
/** Rows asked for before the array's width is known. */
const FIRST_ROWS = 4096;

const TIME = 0;
const POSITION = 1;
const FIRST_VALUE = 2;

/** Memory: one SlidingColumns (bounded there) of MAX_COLUMNS and two columns. */
export class TrendFeed extends ArrayFeed {
  names: readonly string[] = [];
  /** What made the rows: `values`, `features`, `score`; "" if the array does not say. */
  kind = "";
  rows: SlidingColumns | null = null;
  /** Rows in the array, including those that are not kept here. */
  total = 0;
  /** Values in a row of the array; more than `names` if it has more than MAX_COLUMNS. */
  width = 0;

  #row_period_s: number | null = null;
  /** Samples are evenly spaced by definition; events only carry them. */
  #even = false;

  override get row_count(): number {
    return this.rows?.count ?? 0;
  }

  /** Each start reads the newest rows again. */
  protected override prepareStart(): SubscribeOptions {
    this.clear();
    return { history_rows: this.rows?.capacity ?? FIRST_ROWS, from: null };
  }

  /** The readable clock for the rows that are there. */
  get clock(): RowClock {
    if (this.#even && this.#row_period_s !== null) return "signal";
    const times_s = this.rows?.column(TIME);
    if (!times_s || times_s.length < 2) return "event";
    return chooseClock(times_s.length, times_s[times_s.length - 1]! - times_s[0]!, this.#row_period_s);
  }

  /** The rows' places on the axis of `clock`: seconds since the epoch, seconds of signal, or row numbers. */
  places(clock: RowClock): Float64Array {
    return this.rows!.column(clock === "event" ? TIME : POSITION);
  }

  values(index: number): Float64Array {
    return this.rows!.column(FIRST_VALUE + index);
  }

  last(index: number): number {
    return this.rows?.last(FIRST_VALUE + index) ?? NaN;
  }

  /** `last 4,096 of 20,000 rows`, of a window of `window_s` seconds (0: all); "" if none of it is missing. */
  shortage(window_s: number): string {
    const count = this.row_count;
    if (count === 0 || count >= this.total) return "";
    const times_s = this.rows!.column(TIME);
    const reaches = window_s > 0 && this.clock === "event" && times_s[0]! <= times_s[count - 1]! - window_s;
    return reaches ? "" : `last ${formatCount(count)} of ${formatCount(this.total)} rows`;
  }

  /** Whether any of the kept values is a number. */
  get known(): boolean {
    return this.names.some(
      (_, index) => Number.isFinite(this.last(index)) || this.values(index).some(Number.isFinite),
    );
  }

  protected override clear(): void {
    this.rows?.clear();
  }

  protected override takeLayout({ row_shape, attrs }: Layout): void {
    const width = row_shape.reduce((product, length) => product * length, 1);
    const names = columnNames(attrs, width).slice(0, MAX_COLUMNS);
    this.#even = !Array.isArray(attrs["columns"]);
    this.#row_period_s = rowPeriod_s(attrs);
    if (!this.rows || width !== this.width || names.join() !== this.names.join()) {
      this.rows = new SlidingColumns(FIRST_VALUE + names.length, windowRows(names.length));
    }
    this.names = names;
    this.kind = String(attrs["kind"] ?? "");
    this.width = width;
  }

  protected override takeRows(frame: Frame, values: Numbers): void {
    const rows = this.rows!;
    const times_s = frameTimes_s(frame);
    const period = this.#row_period_s ?? 1;
    this.total = rowNumber(frame, frame.count);
    for (let row = 0; row < frame.count; row++) {
      const offset = row * this.width - FIRST_VALUE;
      rows.add((column) =>
        column === TIME
          ? times_s[row]!
          : column === POSITION
            ? rowNumber(frame, row) * period
            : values[offset + column]!,
      );
    }
  }
}

/** `attrs.columns` if it names each value of a row, otherwise numbers. */
export function columnNames(attrs: Attributes, width: number): string[] {
  const columns = attrs["columns"];
  if (Array.isArray(columns) && columns.length === width) return columns.map(String);
  if (width === 1) return ["value"];
  return Array.from({ length: width }, (_, index) => `channel ${index + 1}`);
}
