// The live rows of an array of named columns (features, scores, values), ready to draw.

import { type Dtype, parseDtype } from "./dtype";
import type { FeedState } from "../charts/feed-message";
import { formatCount } from "../display/format";
import { type Frame, frameTimes_s, frameValues, rowNumber } from "./frame";
import { type Attributes, type Layout, type LiveClient, type Subscription } from "./live";
import { type RowClock, chooseClock, rowPeriod_s } from "./row-clock";
import { SlidingColumns, windowRows } from "./sliding-columns";

/** Columns taken of each row; a row has this many at most, the others are left out. */
export const MAX_COLUMNS = 64;
/** Rows asked for before the array's width is known. */
const FIRST_ROWS = 4096;

const TIME = 0;
const POSITION = 1;
const FIRST_VALUE = 2;

/** Memory: one SlidingColumns (bounded there) of MAX_COLUMNS and two columns. */
export class TrendFeed {
  state: FeedState = "connecting";
  detail = "";
  names: readonly string[] = [];
  /** What made the rows: `values`, `features`, `score`; empty where the array does not say. */
  kind = "";
  rows: SlidingColumns | null = null;
  /** How many rows the array has, with those that are not kept here. */
  total = 0;
  /** Values in a row of the array; more than `names` where it has more than MAX_COLUMNS. */
  width = 0;

  readonly #live: LiveClient;
  readonly #reference: string;
  readonly #onChange: () => void;
  readonly #onRows: () => void;
  #dtype: Dtype | null = null;
  #row_period_s: number | null = null;
  /** Samples: evenly spaced by definition, their events are only their parcels. */
  #even = false;
  #subscription: Subscription | null = null;

  constructor(live: LiveClient, reference: string, onChange: () => void, onRows: () => void) {
    this.#live = live;
    this.#reference = reference;
    this.#onChange = onChange;
    this.#onRows = onRows;
  }

  start(): void {
    if (this.#subscription) return;
    const options = { history_rows: this.rows?.capacity ?? FIRST_ROWS, from: null };
    this.rows?.clear();
    this.#subscription = this.#live.subscribe(this.#reference, options, {
      began: (layout, fresh) => this.#begin(layout, fresh),
      rows: (frame) => this.#take(frame),
      waiting: () => this.#enter("waiting"),
      failed: (title, detail) => this.#enter("failed", detail || title),
    });
  }

  stop(): void {
    this.#subscription?.close();
    this.#subscription = null;
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

  /** What is shown of a window of `window_s` seconds, 0 for all, in words; empty if nothing of it is left out. */
  shortage(window_s: number): string {
    const count = this.rows?.count ?? 0;
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

  #enter(state: FeedState, detail = ""): void {
    this.state = state;
    this.detail = detail;
    this.#onChange();
  }

  #begin(layout: Layout, fresh: boolean): void {
    const width = layout.row_shape.reduce((product, length) => product * length, 1);
    try {
      this.#dtype = parseDtype(layout.dtype);
    } catch (error) {
      this.#enter("failed", (error as Error).message);
      return;
    }
    const names = columnNames(layout.attrs, width).slice(0, MAX_COLUMNS);
    this.#even = !Array.isArray(layout.attrs["columns"]);
    this.#row_period_s = rowPeriod_s(layout.attrs);
    if (fresh || !this.rows || width !== this.width || names.join() !== this.names.join()) {
      this.rows = new SlidingColumns(FIRST_VALUE + names.length, windowRows(names.length));
    }
    this.names = names;
    this.kind = String(layout.attrs["kind"] ?? "");
    this.width = width;
    this.#enter("live");
  }

  #take(frame: Frame): void {
    const { rows } = this;
    if (!rows || !this.#dtype) return;
    const values = frameValues(frame, this.#dtype);
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
    this.#onRows();
  }
}

/** `attrs.columns` where it names every value of a row, numbers otherwise. */
export function columnNames(attrs: Attributes, width: number): string[] {
  const columns = attrs["columns"];
  if (Array.isArray(columns) && columns.length === width) return columns.map(String);
  if (width === 1) return ["value"];
  return Array.from({ length: width }, (_, index) => `channel ${index + 1}`);
}
