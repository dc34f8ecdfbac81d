// Rows of a few numbers, newest last, as one contiguous array per column: uPlot draws them without a copy.

/** Rows kept of each column. */
const MAX_ROWS = 8192;
/** Size of all columns of a window; with many columns fewer rows are kept. */
const MAX_BYTES = 16 * 1024 * 1024;
const MIN_ROWS = 256;

/** Rows that a window of `columns` columns keeps. */
export function windowRows(columns: number): number {
  return Math.max(MIN_ROWS, Math.min(MAX_ROWS, Math.floor(MAX_BYTES / (16 * (columns + 2)))));
}

/**
 * A sliding window over rows. Each column has room for twice the window: when it is full, the newer half
 * moves to the front, so that the cost of a row is constant on average. Bounded by MAX_ROWS rows and
 * MAX_BYTES.
 */
export class SlidingColumns {
  readonly columns: number;
  readonly capacity: number;
  readonly #data: Float64Array[];
  #start = 0;
  #end = 0;

  constructor(columns: number, capacity = windowRows(columns)) {
    this.columns = columns;
    this.capacity = capacity;
    this.#data = Array.from({ length: columns }, () => new Float64Array(2 * capacity));
  }

  get count(): number {
    return this.#end - this.#start;
  }

  /** Adds a row; `value(column)` returns its numbers. */
  add(value: (column: number) => number): void {
    if (this.#end === 2 * this.capacity) {
      for (const column of this.#data) column.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    for (let column = 0; column < this.columns; column++) this.#data[column]![this.#end] = value(column);
    this.#end += 1;
    if (this.count > this.capacity) this.#start += 1;
  }

  /** A view on the column's kept rows. */
  column(column: number): Float64Array {
    return this.#data[column]!.subarray(this.#start, this.#end);
  }

  /** The newest value of the column; NaN if there are no rows. */
  last(column: number): number {
    return this.count > 0 ? this.#data[column]![this.#end - 1]! : NaN;
  }

  clear(): void {
    this.#start = this.#end = 0;
  }
}
