// Alarms in words, their order, and what can be done to them: pure functions.

import type { AlarmAction, AlarmEntry, AlarmState, AlarmSummary } from "../api/types";
import { formatDate, formatDuration, formatValue } from "../display/format";

const HOUR_S = 3600;

/** For how long an alarm can be shelved. */
export const SHELF_TIMES: readonly (readonly [string, number])[] = [
  ["1 hour", HOUR_S],
  ["8 hours", 8 * HOUR_S],
  ["1 day", 24 * HOUR_S],
  ["1 week", 7 * 24 * HOUR_S],
];

type Graded = Pick<AlarmSummary, "grade" | "worst" | "state">;

/** The grade that an alarm is shown in: its own, or its worst one after it has returned to healthy. */
export function shownGrade(alarm: Pick<Graded, "grade" | "worst">): number {
  return alarm.grade || alarm.worst;
}

export interface AlarmCount {
  readonly grade: 1 | 2;
  readonly count: number;
  /** How many of them are not acknowledged. */
  readonly raised: number;
}

/** Open alarms by grade, the worst grade first. Acknowledged alarms count, shelved alarms do not. */
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

/** Alarms that are not acknowledged first, then by grade, then the newest first. */
export function byUrgency<One extends AlarmSummary>(alarms: readonly One[]): One[] {
  return [...alarms].sort(
    (one, other) =>
      ORDER[one.state] - ORDER[other.state] ||
      shownGrade(other) - shownGrade(one) ||
      other.raised_ns - one.raised_ns,
  );
}

/** The actions that the state of an alarm allows. */
export function actionsFor(alarm: Pick<AlarmSummary, "state" | "acknowledged_by">): AlarmAction[] {
  const actions: AlarmAction[] = alarm.acknowledged_by === null ? ["acknowledge"] : [];
  actions.push("comment");
  if (alarm.state === "shelved") actions.push("unshelve");
  else if (alarm.state !== "cleared") actions.push("shelve");
  if (alarm.state !== "cleared") actions.push("clear");
  return actions;
}

/** `peak score 7.2 (danger from 10); rms deviates most`, also of a cleared alarm. */
export function findingInWords(alarm: Omit<AlarmSummary, "entries" | "last">): string {
  const levels = [
    alarm.warning === null ? "" : `warning from ${formatValue(alarm.warning)}`,
    alarm.danger === null ? "" : `danger from ${formatValue(alarm.danger)}`,
  ].filter(Boolean);
  const is_low = alarm.warning !== null && alarm.danger !== null && alarm.danger < alarm.warning;
  const value = `${is_low ? "lowest" : "peak"} ${alarm.column} ${formatValue(alarm.peak ?? alarm.value)} (${levels.join(", ")})`;
  const leading = alarm.leading && alarm.leading !== alarm.column ? `; ${alarm.leading} deviates most` : "";
  const life = alarm.rul_s === null ? "" : `; about ${formatDuration(alarm.rul_s)} of operation left`;
  return value + leading + life;
}

/** `acknowledged by ada`; `raised at 7.2` for an entry that data caused. */
export function entryInWords(entry: AlarmEntry): string {
  if (entry.time_ns === null) return `${entry.action} by ${entry.by}`;
  return entry.value === null ? entry.action : `${entry.action} at ${formatValue(entry.value)}`;
}

/** `shelved until 2030-01-01 08:00:00`, `acknowledged by ada`, or the state alone. */
export function stateInWords(alarm: Pick<AlarmSummary, "state" | "shelved_until_ns" | "acknowledged_by">): string {
  if (alarm.state === "shelved" && alarm.shelved_until_ns !== null) {
    return `shelved until ${formatDate(alarm.shelved_until_ns / 1e9)}`;
  }
  if (alarm.state === "acknowledged") return `acknowledged by ${alarm.acknowledged_by ?? "an operator"}`;
  return alarm.state;
}
