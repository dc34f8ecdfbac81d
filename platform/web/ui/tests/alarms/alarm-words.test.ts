import { describe, expect, it } from "vitest";
import {
  actionsFor,
  byUrgency,
  countByGrade,
  entryInWords,
  findingInWords,
  shownGrade,
  stateInWords,
} from "../../src/alarms/alarm-words";
import { gradeName } from "../../src/status/marks";
import type { AlarmEntry, AlarmSummary } from "../../src/api/types";

const entry = (more: Partial<AlarmEntry>): AlarmEntry => ({
  number: 0,
  at_ns: 0,
  by: "windvane",
  action: "raised",
  text: "",
  time_ns: 5,
  grade: 1,
  value: 7.25,
  ...more,
});

const alarm = (more: Partial<AlarmSummary>): AlarmSummary => ({
  reference: "a:condition:01234567:41",
  state: "raised",
  stream: "a",
  policy: "p",
  name: "condition",
  output: "condition",
  column: "score",
  row: 41,
  raised_ns: 1e18,
  changed_ns: 1e18,
  grade: 1,
  worst: 1,
  value: 7.25,
  peak: 9.5,
  peak_ns: 1e18,
  warning: 6,
  danger: 10,
  leading: "rms",
  rul_s: null,
  acknowledged_by: null,
  shelved_until_ns: null,
  entries: 1,
  last: entry({}),
  revision: 3,
  ...more,
});

describe("alarms", () => {
  it("are sorted: not acknowledged first, then the worst, then the newest", () => {
    const sorted = byUrgency([
      alarm({ reference: "seen", state: "acknowledged", grade: 2 }),
      alarm({ reference: "older" }),
      alarm({ reference: "newer", raised_ns: 2e18 }),
      alarm({ reference: "worse", grade: 2 }),
      alarm({ reference: "over", state: "cleared", grade: 0, worst: 2 }),
      alarm({ reference: "aside", state: "shelved", grade: 2 }),
    ]);
    expect(sorted.map(({ reference }) => reference)).toEqual([
      "worse",
      "newer",
      "older",
      "seen",
      "aside",
      "over",
    ]);
  });

  it("are shown in their grade, or in their worst grade after they returned to healthy", () => {
    expect(gradeName(shownGrade(alarm({ grade: 1, worst: 2 })))).toBe("warning");
    expect(gradeName(shownGrade(alarm({ grade: 0, worst: 2 })))).toBe("danger");
  });

  it("are counted by grade until they are cleared or shelved, acknowledged or not", () => {
    expect(
      countByGrade([
        alarm({ grade: 2, worst: 2, state: "acknowledged" }),
        alarm({ grade: 1 }),
        alarm({ grade: 1, state: "acknowledged" }),
        alarm({ grade: 2, state: "shelved" }),
        alarm({ grade: 0, worst: 2, state: "cleared" }),
      ]),
    ).toEqual([
      { grade: 2, count: 1, raised: 0 },
      { grade: 1, count: 2, raised: 1 },
    ]);
    expect(countByGrade([])).toEqual([]);
  });

  it("state the finding, the levels and the remaining life", () => {
    expect(findingInWords(alarm({ rul_s: 7200 }))).toBe(
      "peak score 9.5 (warning from 6, danger from 10); rms deviates most; about 2 h of operation left",
    );
    expect(findingInWords(alarm({ column: "rms", warning: null, peak: null }))).toBe("peak rms 7.25 (danger from 10)");
    expect(findingInWords(alarm({ state: "cleared", grade: 0, value: -0.39, leading: null }))).toBe(
      "peak score 9.5 (warning from 6, danger from 10)",
    );
    expect(findingInWords(alarm({ warning: 20, danger: 10, peak: 0.5, leading: null }))).toBe(
      "lowest score 0.5 (warning from 20, danger from 10)",
    );
  });

  it("offer the actions that their state allows", () => {
    expect(actionsFor(alarm({}))).toEqual(["acknowledge", "comment", "shelve", "clear"]);
    expect(actionsFor(alarm({ state: "acknowledged", acknowledged_by: "ada" }))).toEqual([
      "comment",
      "shelve",
      "clear",
    ]);
    expect(actionsFor(alarm({ state: "shelved" }))).toEqual(["acknowledge", "comment", "unshelve", "clear"]);
    expect(actionsFor(alarm({ state: "cleared", acknowledged_by: "ada" }))).toEqual(["comment"]);
  });

  it("name the author of each entry", () => {
    expect(entryInWords(entry({}))).toBe("raised at 7.25");
    expect(entryInWords(entry({ action: "acknowledged", by: "ada", time_ns: null, value: null }))).toBe(
      "acknowledged by ada",
    );
    expect(stateInWords(alarm({ state: "acknowledged", acknowledged_by: "ada" }))).toBe("acknowledged by ada");
    expect(stateInWords(alarm({ state: "shelved", shelved_until_ns: 1.8e18 }))).toMatch(/^shelved until 2027-/);
  });
});
