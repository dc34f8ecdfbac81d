// The range of levels of a spectrum and its colours: it follows the signal in steps.

/** Levels counted, in steps of 1 dB. */
const LOWEST_DB = -400;
const HIGHEST_DB = 200;
/** Bins of each row that count for the lower end. */
const SAMPLES_A_ROW = 128;
/** Ends of the range are multiples of this. */
const STEP_DB = 5;
const NARROWEST_DB = 30;
/** Share of the counts that each update keeps. */
const MEMORY = 0.85;
/** Share of the levels that may lie below the range. */
const FLOOR_SHARE = 0.08;

export interface LevelRange {
  readonly low_db: number;
  readonly high_db: number;
}

/** Memory: 600 counters. */
export class AutoLevelRange {
  range: LevelRange = { low_db: -100, high_db: 0 };
  #counts = new Float32Array(HIGHEST_DB - LOWEST_DB);
  #peak_db = -Infinity;
  #settled = false;

  add(levels_db: Float32Array): void {
    const stride = Math.max(1, Math.floor(levels_db.length / SAMPLES_A_ROW));
    for (let bin = 0; bin < levels_db.length; bin++) {
      const level_db = levels_db[bin]!;
      // Peaks are narrow: all bins count for the upper end, a sample of them for the lower one.
      if (level_db > this.#peak_db) this.#peak_db = level_db;
      if (bin % stride === 0 && level_db > LOWEST_DB + 1) {
        const place = Math.min(this.#counts.length - 1, Math.max(0, Math.floor(level_db - LOWEST_DB)));
        this.#counts[place]! += 1;
      }
    }
  }

  /** Adapts the range to the levels added since; true if it changed. It widens at once and narrows in steps. */
  update(): boolean {
    let sum = 0;
    for (const count of this.#counts) sum += count;
    if (sum === 0) return false;
    let below = 0;
    let place = 0;
    while (place < this.#counts.length - 1 && below + this.#counts[place]! < sum * FLOOR_SHARE) {
      below += this.#counts[place]!;
      place += 1;
    }
    for (let index = 0; index < this.#counts.length; index++) this.#counts[index]! *= MEMORY;
    const floor_db = LOWEST_DB + place;
    const high_db = Math.ceil((this.#peak_db + 2) / STEP_DB) * STEP_DB;
    const low_db = Math.min(Math.floor((floor_db - 2) / STEP_DB) * STEP_DB, high_db - NARROWEST_DB);
    this.#peak_db -= 3;

    const { range } = this;
    const next: LevelRange = this.#settled
      ? {
          low_db: low_db < range.low_db || low_db > range.low_db + 2 * STEP_DB ? low_db : range.low_db,
          high_db: high_db > range.high_db || high_db < range.high_db - 3 * STEP_DB ? high_db : range.high_db,
        }
      : { low_db, high_db };
    this.#settled = true;
    if (next.low_db === range.low_db && next.high_db === range.high_db) return false;
    this.range = next;
    return true;
  }

  reset(): void {
    this.#counts.fill(0);
    this.#peak_db = -Infinity;
    this.#settled = false;
  }
}
