// The ticks of time axes: pure functions.

export interface TimeTick {
  /** Rows before the newest. */
  readonly age: number;
  readonly time_s: number;
}

/** Round steps of time axes. */
export const STEPS_S: readonly number[] = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
  3600, 7200, 14400, 21600, 43200, 86400,
];

/** The step for about `marks` ticks over `span_s`. */
export function tickStep_s(span_s: number, marks: number): number {
  const wanted_s = span_s / Math.max(1, marks);
  return STEPS_S.find((step_s) => step_s >= wanted_s) ?? 86400 * Math.ceil(wanted_s / 86400);
}

/**
 * The rows at which a multiple of `step_s` is passed, newest first; `time_s(age)` is the time of a row. Ticks are
 * at least `apart` rows from one another.
 */
export function timeTicks(
  rows: number,
  time_s: (age: number) => number,
  step_s: number,
  apart: number,
): TimeTick[] {
  const ticks: TimeTick[] = [];
  for (let age = 0; age + 1 < rows; age++) {
    // Slightly above the multiple, so that 0.1 * 3 counts as 0.3.
    const mark = Math.floor(time_s(age) / step_s + 1e-6);
    if (mark <= Math.floor(time_s(age + 1) / step_s + 1e-6)) continue;
    if (ticks.length > 0 && age - ticks.at(-1)!.age < apart) continue;
    ticks.push({ age, time_s: mark * step_s });
  }
  return ticks;
}

/** Decimals of the second that ticks `step_s` apart need. */
export function tickDecimals(step_s: number): number {
  return step_s >= 1 ? 0 : Math.ceil(-Math.log10(step_s) - 1e-9);
}
