// The live rows of a spectrum array, one channel of them, ready to draw.

import { ArrayFeed, LayoutUnsupported } from "./array-feed";
import type { Numbers } from "./dtype";
import { type Frame, frameTimes_s, rowNumber } from "./frame";
import { MAX_ROWS, LevelHistory } from "./level-history";
import { AutoLevelRange } from "./level-range";
import type { Attributes, Layout, SubscribeOptions } from "./live";
import { rowPeriod_s } from "./row-clock";

export interface SpectrumPoint {
  readonly frequency_hz: number;
  readonly level_db: number;
}

/** Weight of a new row in the running average of powers. */
const AVERAGE_SHARE = 0.05;
/** The first bin that the constant part does not reach. */
const FIRST_TONE_BIN = 2;

/** Memory: one LevelHistory (bounded there) and two rows. */
export class SpectrumFeed extends ArrayFeed {
  channels = 1;
  /** Null until the array's layout is known. */
  history: LevelHistory | null = null;
  frequency_step_hz = 1;
  /** What levels are relative to: `g²/Hz`. */
  power_unit = "";
  /** Seconds between rows; null if the array does not say. */
  row_period_s: number | null = null;
  average: Float32Array = new Float32Array(0);
  peak_db: Float32Array = new Float32Array(0);
  readonly range = new AutoLevelRange();

  #channel = 0;
  #resume_row: number | null = null;

  get channel(): number {
    return this.#channel;
  }

  override get row_count(): number {
    return this.history?.count ?? 0;
  }

  get bins(): number {
    return this.history?.bins ?? 0;
  }

  get highest_hz(): number {
    return Math.max(1, this.bins - 1) * this.frequency_step_hz;
  }

  /** The newest level at a frequency; null before the first row. */
  level(frequency_hz: number): SpectrumPoint | null {
    return this.#point(Math.round(frequency_hz / this.frequency_step_hz));
  }

  /**
   * The strongest newest level between two frequencies. The constant part is not a tone, and a window spreads it
   * over the next bin: both are skipped if there are other bins.
   */
  strongest(low_hz: number, high_hz: number): SpectrumPoint | null {
    if (!this.history?.count) return null;
    const levels_db = this.history.levels(0);
    const last = Math.min(this.bins - 1, Math.floor(high_hz / this.frequency_step_hz));
    let highest = Math.min(last, Math.max(FIRST_TONE_BIN, Math.ceil(low_hz / this.frequency_step_hz)));
    for (let bin = highest + 1; bin <= last; bin++) if (levels_db[bin]! > levels_db[highest]!) highest = bin;
    return this.#point(highest);
  }

  #point(bin: number): SpectrumPoint | null {
    if (!this.history?.count) return null;
    const nearest = Math.min(this.bins - 1, Math.max(0, bin));
    return { frequency_hz: nearest * this.frequency_step_hz, level_db: this.history.levels(0)[nearest]! };
  }

  /** `start` after `stop` continues with the next row. */
  protected override prepareStart(): SubscribeOptions {
    return { history_rows: this.history?.capacity ?? MAX_ROWS, from: this.#resume_row };
  }

  protected override stopped(next_row: number | null): void {
    this.#resume_row = next_row ?? this.#resume_row;
  }

  /** Shows another channel, from as far back as the history reaches. */
  choose(channel: number): void {
    const paused = this.paused;
    this.stop();
    this.#channel = channel;
    this.#resume_row = null;
    this.clear();
    if (!paused) this.start();
  }

  resetPeak(): void {
    this.peak_db.fill(-Infinity);
  }

  protected override clear(): void {
    this.history?.clear();
    this.average.fill(NaN);
    this.resetPeak();
    this.range.reset();
    this.observer.rowsChanged();
  }

  protected override takeLayout({ row_shape, attrs }: Layout): void {
    const bins = row_shape.at(-1) ?? 0;
    if (row_shape.length < 1 || row_shape.length > 2 || bins < 2) {
      throw new LayoutUnsupported(`Rows of shape (${row_shape.join(", ")}) are not spectra.`);
    }
    this.channels = row_shape.length === 2 ? row_shape[0]! : 1;
    this.#channel = Math.min(this.#channel, this.channels - 1);
    this.frequency_step_hz = Number(attrs["frequency_step_hz"] ?? 1);
    this.power_unit = powerUnit(attrs);
    this.row_period_s = rowPeriod_s(attrs);
    if (this.history?.bins !== bins) {
      this.history = new LevelHistory(bins);
      this.average = new Float32Array(bins).fill(NaN);
      this.peak_db = new Float32Array(bins).fill(-Infinity);
    }
  }

  protected override takeRows(frame: Frame, powers: Numbers): void {
    const history = this.history!;
    const { bins } = history;
    const times_s = frameTimes_s(frame);
    for (let row = 0; row < frame.count; row++) {
      const offset = (row * this.channels + this.#channel) * bins;
      history.add(powers, offset, times_s[row]!, rowNumber(frame, row));
      const levels_db = history.levels(0);
      this.range.add(levels_db);
      for (let bin = 0; bin < bins; bin++) {
        if (levels_db[bin]! > this.peak_db[bin]!) this.peak_db[bin] = levels_db[bin]!;
        const average = this.average[bin]!;
        const power = powers[offset + bin]!;
        this.average[bin] = Number.isNaN(average) ? power : average + (power - average) * AVERAGE_SHARE;
      }
    }
  }
}

/** The unit of the rows' powers; the power of a signal without a unit is a number. */
export function powerUnit(attrs: Attributes): string {
  const { unit } = attrs;
  if (typeof unit === "string" && unit) return unit;
  return attrs["scaling"] === "spectrum" ? "1" : "1/Hz";
}
