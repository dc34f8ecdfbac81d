// What an alarm says, in words and in lines: no element, no server.

import type { Alarm, AlarmAction, AlarmEntry, AlarmRows, AlarmState, AlarmSummary } from "../api/api";
import { formatDate, formatDuration, formatValue } from "../display/format";

const GRADES = ["healthy", "warning", "danger"] as const;
const HOUR_S = 3600;

/** How long an alarm is put aside. */
export const SHELF_TIMES: readonly (readonly [string, number])[] = [
  ["1 hour", HOUR_S],
  ["8 hours", 8 * HOUR_S],
  ["1 day", 24 * HOUR_S],
  ["1 week", 7 * 24 * HOUR_S],
];

/** Where rows are fetched for the picture of an alarm: so many before it was raised, and after. */
export const ROWS_BEFORE = 90;
export const ROWS_AFTER = 30;

type Graded = Pick<AlarmSummary, "grade" | "worst" | "state">;

/** The grade that an alarm is shown in: its own, and that of its worst time once it is over. */
export function shownGrade(alarm: Pick<Graded, "grade" | "worst">): number {
  return alarm.grade || alarm.worst;
}

export function gradeName(grade: number): string {
  return GRADES[grade] ?? "healthy";
}

export interface AlarmCount {
  readonly grade: 1 | 2;
  readonly count: number;
  /** How many of them wait to be acknowledged. */
  readonly raised: number;
}

/** The open alarms by grade, the worst first. Acknowledged ones count too, shelved ones do not. */
export function countByGrade(alarms: readonly Graded[]): AlarmCount[] {
  const active = alarms.filter(({ state }) => state === "raised" || state === "acknowledged");
  return ([2, 1] as const)
    .map((grade) => {
      const found = active.filter((alarm) => Math.max(1, shownGrade(alarm)) === grade);
      return { grade, count: found.length, raised: found.filter(({ state }) => state === "raised").length };
    })
    .filter(({ count }) => count > 0);
}

const ORDER: Readonly<Record<AlarmState, number>> = { raised: 0, acknowledged: 1, shelved: 2, cleared: 3 };

/** Those that nobody has seen first, the worst of them first, of equals the newest. */
export function byUrgency<One extends AlarmSummary>(alarms: readonly One[]): One[] {
  return [...alarms].sort(
    (one, other) =>
      ORDER[one.state] - ORDER[other.state] ||
      shownGrade(other) - shownGrade(one) ||
      other.raised_ns - one.raised_ns,
  );
}

/** What can be done to an alarm now. */
export function actionsFor(alarm: Pick<AlarmSummary, "state" | "acknowledged_by">): AlarmAction[] {
  const actions: AlarmAction[] = alarm.acknowledged_by === null ? ["acknowledge"] : [];
  actions.push("comment");
  if (alarm.state === "shelved") actions.push("unshelve");
  else if (alarm.state !== "cleared") actions.push("shelve");
  if (alarm.state !== "cleared") actions.push("clear");
  return actions;
}

/** `peak score 7.2 (danger from 10); rms deviates most`: how bad it was, also once it is cleared. */
export function findingInWords(alarm: Omit<AlarmSummary, "entries" | "last">): string {
  const levels = [
    alarm.warning === null ? "" : `warning from ${formatValue(alarm.warning)}`,
    alarm.danger === null ? "" : `danger from ${formatValue(alarm.danger)}`,
  ].filter(Boolean);
  const is_low = alarm.warning !== null && alarm.danger !== null && alarm.danger < alarm.warning;
  const value = `${is_low ? "lowest" : "peak"} ${alarm.column} ${formatValue(alarm.peak ?? alarm.value)} (${levels.join(", ")})`;
  const leading = alarm.leading && alarm.leading !== alarm.column ? `; ${alarm.leading} deviates most` : "";
  const life = alarm.rul_s === null ? "" : `; about ${formatDuration(alarm.rul_s)} of running left`;
  return value + leading + life;
}

/** `acknowledged by ada`, or, of what rows have done, the action and the value. */
export function entryInWords(entry: AlarmEntry): string {
  if (entry.time_ns === null) return `${entry.action} by ${entry.by}`;
  return entry.value === null ? entry.action : `${entry.action} at ${formatValue(entry.value)}`;
}

/** `shelved until 2030-01-01 08:00:00`, or the state alone. */
export function stateInWords(alarm: Pick<AlarmSummary, "state" | "shelved_until_ns" | "acknowledged_by">): string {
  if (alarm.state === "shelved" && alarm.shelved_until_ns !== null) {
    return `shelved until ${formatDate(alarm.shelved_until_ns / 1e9)}`;
  }
  if (alarm.state === "acknowledged") return `acknowledged by ${alarm.acknowledged_by ?? "an operator"}`;
  return alarm.state;
}

/** The rows of the judged output that are worth a look. */
export function rowsAround(alarm: Pick<Alarm, "row">): { first: number; stop: number } {
  return { first: Math.max(0, alarm.row - ROWS_BEFORE), stop: alarm.row + ROWS_AFTER };
}

/** A line through values, as SVG path data in a box of `width` by `height`; it is broken where there is none. */
export function linePath(
  values: readonly (number | null)[],
  range: { lowest: number; highest: number },
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

/** What the picture must show: the values, and the levels that they are judged by. */
export function rangeOf(
  values: readonly (number | null)[],
  levels: readonly (number | null)[],
): { lowest: number; highest: number } {
  const known = [...values, ...levels].filter((value): value is number => value !== null);
  if (known.length === 0) return { lowest: 0, highest: 1 };
  const lowest = known.reduce((least, value) => Math.min(least, value), 0);
  const highest = known.reduce((most, value) => Math.max(most, value));
  return { lowest, highest: highest > lowest ? highest * 1.05 : lowest + 1 };
}

/** Spectrum rows that a picture is made of, of those of the alarm and of those before it. */
export const SPECTRUM_ROWS = 8;

type SpectrumRow = readonly (number | null)[] | readonly (readonly (number | null)[])[];

/** The mean of spectra in decibels, line by line; of several channels the first. Null where there is no power. */
export function meanDecibel(rows: readonly SpectrumRow[]): (number | null)[] {
  const spectra = rows.map((row) => (Array.isArray(row[0]) ? row[0] : row) as readonly (number | null)[]);
  return (spectra[0] ?? []).map((_, line) => {
    const powers = spectra.map((spectrum) => spectrum[line] ?? null).filter((power) => power !== null);
    const mean = powers.reduce((sum, power) => sum + power, 0) / powers.length;
    return mean > 0 ? 10 * Math.log10(mean) : null;
  });
}

/**
 * The rows of a spectrum to compare: the last of the alarm's, and as many from half-way between the first row
 * that is kept and the alarm, since right before an alarm a machine is seldom healthy.
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
