// Which rows the pictures of an alarm show, and their lines: pure functions.

import type { Alarm, AlarmRows } from "../api/types";

/** Rows of the judged output before and after the alarm was raised. */
const ROWS_BEFORE = 90;
const ROWS_AFTER = 30;

export interface Range {
  readonly lowest: number;
  readonly highest: number;
}

/** The rows of the judged output around the alarm. */
export function rowsAround(alarm: Pick<Alarm, "row">): { first: number; stop: number } {
  return { first: Math.max(0, alarm.row - ROWS_BEFORE), stop: alarm.row + ROWS_AFTER };
}

/** A line through values, as SVG path data in a box of `width` by `height`; null breaks the line. */
export function linePath(
  values: readonly (number | null)[],
  range: Range,
  width: number,
  height: number,
): string {
  const across = values.length > 1 ? width / (values.length - 1) : 0;
  const up = range.highest > range.lowest ? height / (range.highest - range.lowest) : 0;
  let path = "";
  let drawing = false;
  values.forEach((value, index) => {
    if (value !== null) {
      const x = (index * across).toFixed(1);
      path += `${drawing ? "L" : "M"}${x} ${(height - (value - range.lowest) * up).toFixed(1)}`;
    }
    drawing = value !== null;
  });
  return path;
}

/** The range of the values and of the levels that they are judged by. */
export function rangeOf(
  values: readonly (number | null)[],
  levels: readonly (number | null)[],
): Range {
  const known = [...values, ...levels].filter((value): value is number => value !== null);
  if (known.length === 0) return { lowest: 0, highest: 1 };
  const lowest = known.reduce((least, value) => Math.min(least, value), 0);
  const highest = known.reduce((most, value) => Math.max(most, value));
  return { lowest, highest: highest > lowest ? highest * 1.05 : lowest + 1 };
}

/** Spectrum rows that are averaged, at the alarm and before it. */
const SPECTRUM_ROWS = 8;

type SpectrumRow = readonly (number | null)[] | readonly (readonly (number | null)[])[];

/** The mean of spectra in decibels, by bin; the first of several channels. Null for a bin without power. */
export function meanDecibel(rows: readonly SpectrumRow[]): (number | null)[] {
  const spectra = rows.map((row) => (Array.isArray(row[0]) ? row[0] : row) as readonly (number | null)[]);
  return (spectra[0] ?? []).map((_, line) => {
    const powers = spectra.map((spectrum) => spectrum[line] ?? null).filter((power) => power !== null);
    const mean = powers.reduce((sum, power) => sum + power, 0) / powers.length;
    return mean > 0 ? 10 * Math.log10(mean) : null;
  });
}

/**
 * The rows of a spectrum to compare: the last ones of the alarm, and as many from half-way between `start`, the
 * first row that is kept, and the alarm. A machine is seldom healthy right before an alarm.
 */
export function comparedRows(
  rows: AlarmRows,
  start: number,
): { now: [number, number]; before: [number, number] } {
  const stop = rows.first + rows.count;
  const middle = Math.max(start, Math.floor((start + rows.first - SPECTRUM_ROWS) / 2));
  return {
    now: [Math.max(rows.first, stop - SPECTRUM_ROWS), stop],
    before: [middle, Math.min(rows.first, middle + SPECTRUM_ROWS)],
  };
}
