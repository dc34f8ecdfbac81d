// The live rows of a spectrum array, one channel of them, ready to draw.

import { type Dtype, parseDtype } from "./dtype";
import type { FeedState } from "../charts/feed-message";
import { type Frame, frameTimes_s, frameValues, rowNumber } from "./frame";
import { MAX_ROWS, LevelHistory } from "./level-history";
import { AutoLevelRange } from "./level-range";
import type { Attributes, Layout, LiveClient, Subscription } from "./live";
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
export class SpectrumFeed {
  state: FeedState = "connecting";
  /** Why it failed. */
  detail = "";
  channels = 1;
  /** Null until the array's layout is known. */
  history: LevelHistory | null = null;
  frequency_step_hz = 1;
  /** What levels are relative to: `g²/Hz`. */
  power_unit = "";
  /** Seconds between rows; null where the array does not say. */
  row_period_s: number | null = null;
  average: Float32Array = new Float32Array(0);
  peak_db: Float32Array = new Float32Array(0);
  readonly range = new AutoLevelRange();

  readonly #live: LiveClient;
  readonly #reference: string;
  /** Something other than rows changed. */
  readonly #onChange: () => void;
  readonly #onRows: () => void;
  #channel = 0;
  #layout: Layout | null = null;
  #dtype: Dtype | null = null;
  #subscription: Subscription | null = null;
  #resume_row: number | null = null;

  constructor(live: LiveClient, reference: string, onChange: () => void, onRows: () => void) {
    this.#live = live;
    this.#reference = reference;
    this.#onChange = onChange;
    this.#onRows = onRows;
  }

  get channel(): number {
    return this.#channel;
  }

  get paused(): boolean {
    return this.#subscription === null;
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
   * The strongest newest level between two frequencies. The constant part is no tone, and a window spreads it
   * over the bin beside it: both are left out where there are others.
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

  start(): void {
    if (this.#subscription) return;
    const options = { history_rows: this.history?.capacity ?? MAX_ROWS, from: this.#resume_row };
    this.#subscription = this.#live.subscribe(this.#reference, options, {
      began: (layout, fresh) => this.#begin(layout, fresh),
      rows: (frame) => this.#take(frame),
      waiting: () => this.#enter("waiting"),
      failed: (title, detail) => this.#enter("failed", detail || title),
    });
  }

  /** Holds what is shown; `start` goes on with the row after it. */
  pause(): void {
    this.#resume_row = this.#subscription?.next_row ?? this.#resume_row;
    this.#subscription?.close();
    this.#subscription = null;
  }

  /** Shows another channel, from as far back as the history reaches. */
  choose(channel: number): void {
    const paused = this.paused;
    this.pause();
    this.#channel = channel;
    this.#resume_row = null;
    this.#clear();
    if (!paused) this.start();
  }

  resetPeak(): void {
    this.peak_db.fill(-Infinity);
  }

  #enter(state: FeedState, detail = ""): void {
    this.state = state;
    this.detail = detail;
    this.#onChange();
  }

  #clear(): void {
    this.history?.clear();
    this.average.fill(NaN);
    this.resetPeak();
    this.range.reset();
    this.#onRows();
  }

  #begin(layout: Layout, fresh: boolean): void {
    if (fresh) this.#clear();
    const shape = layout.row_shape;
    const bins = shape.at(-1) ?? 0;
    if (shape.length < 1 || shape.length > 2 || bins < 2) {
      this.#enter("failed", `Rows of shape (${shape.join(", ")}) are no spectra.`);
      return;
    }
    try {
      this.#dtype = parseDtype(layout.dtype);
    } catch (error) {
      this.#enter("failed", (error as Error).message);
      return;
    }
    this.#layout = layout;
    this.channels = shape.length === 2 ? shape[0]! : 1;
    this.#channel = Math.min(this.#channel, this.channels - 1);
    this.frequency_step_hz = Number(layout.attrs["frequency_step_hz"] ?? 1);
    this.power_unit = powerUnit(layout.attrs);
    this.row_period_s = rowPeriod_s(layout.attrs);
    if (this.history?.bins !== bins) {
      this.history = new LevelHistory(bins);
      this.average = new Float32Array(bins).fill(NaN);
      this.peak_db = new Float32Array(bins).fill(-Infinity);
    }
    this.#enter("live");
  }

  #take(frame: Frame): void {
    const { history } = this;
    if (!history || !this.#dtype || !this.#layout) return;
    const { bins } = history;
    const powers = frameValues(frame, this.#dtype);
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
    this.#onRows();
  }
}

/** The unit of the rows' powers; a signal without one is counted in ones. */
export function powerUnit(attrs: Attributes): string {
  const { unit } = attrs;
  if (typeof unit === "string" && unit) return unit;
  return attrs["scaling"] === "spectrum" ? "1" : "1/Hz";
}
