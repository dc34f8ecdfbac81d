// The newest spectra of one channel, as levels in dB, in a ring that is allocated once.

import type { Numbers } from "./dtype";

/** Rows kept of short rows. */
export const MAX_ROWS = 512;
/** Size of a ring; of longer rows fewer are kept. */
export const MAX_BYTES = 16 * 1024 * 1024;
const MIN_ROWS = 32;

/** Power below this counts as this: -400 dB, below the range of any instrument, and finite. */
const LEAST_POWER = 1e-40;

/** Rows that a history of `bins` bins keeps. */
export function historyRows(bins: number): number {
  return Math.max(MIN_ROWS, Math.min(MAX_ROWS, Math.floor(MAX_BYTES / (4 * Math.max(1, bins)))));
}

export function toDecibel(power: number): number {
  return 10 * Math.log10(power > LEAST_POWER ? power : LEAST_POWER);
}

/** Row 0 is the newest. Bounded by MAX_ROWS rows and MAX_BYTES. */
export class LevelHistory {
  readonly bins: number;
  readonly capacity: number;
  /** Rows that are kept. */
  count = 0;
  /** Rows ever added. */
  total = 0;
  readonly #levels_db: Float32Array;
  readonly #times_s: Float64Array;
  readonly #numbers: Float64Array;
  #newest = -1;

  constructor(bins: number) {
    this.bins = bins;
    this.capacity = historyRows(bins);
    this.#levels_db = new Float32Array(this.capacity * bins);
    this.#times_s = new Float64Array(this.capacity);
    this.#numbers = new Float64Array(this.capacity);
  }

  /** Adds the `bins` powers that begin at `offset` of `powers`. */
  add(powers: Numbers, offset: number, time_s: number, row_number: number): void {
    this.#newest = (this.#newest + 1) % this.capacity;
    this.count = Math.min(this.count + 1, this.capacity);
    this.total += 1;
    this.#times_s[this.#newest] = time_s;
    this.#numbers[this.#newest] = row_number;
    const start = this.#newest * this.bins;
    for (let bin = 0; bin < this.bins; bin++) this.#levels_db[start + bin] = toDecibel(powers[offset + bin]!);
  }

  #slot(age: number): number {
    return (this.#newest - age + this.capacity) % this.capacity;
  }

  /** A view on the levels of the row `age` rows before the newest. */
  levels(age: number): Float32Array {
    const start = this.#slot(age) * this.bins;
    return this.#levels_db.subarray(start, start + this.bins);
  }

  time_s(age: number): number {
    return this.#times_s[this.#slot(age)]!;
  }

  rowNumber(age: number): number {
    return this.#numbers[this.#slot(age)]!;
  }

  clear(): void {
    this.count = 0;
    this.#newest = -1;
  }
}
