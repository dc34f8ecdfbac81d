import { describe, expect, it } from "vitest";
import {
  actionsFor,
  byUrgency,
  countByGrade,
  comparedRows,
  entryInWords,
  findingInWords,
  gradeName,
  linePath,
  meanDecibel,
  rangeOf,
  rowsAround,
  shownGrade,
  stateInWords,
} from "../../src/alarms/alarms";
import { Api, type AlarmEntry, type AlarmSummary } from "../../src/api/api";

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
  it("come by urgency: what nobody has seen, what is worst, what is newest", () => {
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

  it("are shown in their grade, and in that of their worst time once they are over", () => {
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

  it("say what was found, by which levels, and how long it may last", () => {
    expect(findingInWords(alarm({ rul_s: 7200 }))).toBe(
      "peak score 9.5 (warning from 6, danger from 10); rms deviates most; about 2 h of running left",
    );
    expect(findingInWords(alarm({ column: "rms", warning: null, peak: null }))).toBe("peak rms 7.25 (danger from 10)");
    expect(findingInWords(alarm({ state: "cleared", grade: 0, value: -0.39, leading: null }))).toBe(
      "peak score 9.5 (warning from 6, danger from 10)",
    );
    expect(findingInWords(alarm({ warning: 20, danger: 10, peak: 0.5, leading: null }))).toBe(
      "lowest score 0.5 (warning from 20, danger from 10)",
    );
  });

  it("offer what can be done to them, and nothing else", () => {
    expect(actionsFor(alarm({}))).toEqual(["acknowledge", "comment", "shelve", "clear"]);
    expect(actionsFor(alarm({ state: "acknowledged", acknowledged_by: "ada" }))).toEqual([
      "comment",
      "shelve",
      "clear",
    ]);
    expect(actionsFor(alarm({ state: "shelved" }))).toEqual(["acknowledge", "comment", "unshelve", "clear"]);
    expect(actionsFor(alarm({ state: "cleared", acknowledged_by: "ada" }))).toEqual(["comment"]);
  });

  it("say who did what", () => {
    expect(entryInWords(entry({}))).toBe("raised at 7.25");
    expect(entryInWords(entry({ action: "acknowledged", by: "ada", time_ns: null, value: null }))).toBe(
      "acknowledged by ada",
    );
    expect(stateInWords(alarm({ state: "acknowledged", acknowledged_by: "ada" }))).toBe("acknowledged by ada");
    expect(stateInWords(alarm({ state: "shelved", shelved_until_ns: 1.8e18 }))).toMatch(/^shelved until 2027-/);
  });
});

describe("the picture of an alarm", () => {
  it("is of the rows around it", () => {
    expect(rowsAround({ row: 200 })).toEqual({ first: 110, stop: 230 });
    expect(rowsAround({ row: 5 })).toEqual({ first: 0, stop: 35 });
  });

  it("is a line that is broken where nothing is known", () => {
    expect(linePath([0, 5, null, 10], { lowest: 0, highest: 10 }, 30, 100)).toBe("M0.0 100.0L10.0 50.0M30.0 0.0");
    expect(linePath([], { lowest: 0, highest: 1 }, 30, 100)).toBe("");
  });

  it("compares spectra with those of long before, in decibels", () => {
    expect(meanDecibel([[1, 10, null], [1, 190, 0]])).toEqual([0, 20, null]);
    expect(meanDecibel([[[100], [1]], [[100], [1]]])).toEqual([20]);
    expect(meanDecibel([])).toEqual([]);
    const rows = { array: "a", first: 100, count: 50 };
    expect(comparedRows(rows, 0)).toEqual({ now: [142, 150], before: [46, 54] });
    expect(comparedRows(rows, 60)).toEqual({ now: [142, 150], before: [76, 84] });
    expect(comparedRows({ array: "a", first: 3, count: 2 }, 0)).toEqual({ now: [3, 5], before: [0, 3] });
  });

  it("has room for the levels too", () => {
    expect(rangeOf([1, null, 3], [6, 10])).toEqual({ lowest: 0, highest: 10.5 });
    expect(rangeOf([-2, 1], [null, null])).toEqual({ lowest: -2, highest: 1.05 });
    expect(rangeOf([null], [null, null])).toEqual({ lowest: 0, highest: 1 });
    expect(rangeOf([0], [null, null])).toEqual({ lowest: 0, highest: 1 });
  });
});

describe("what is done to an alarm", () => {
  it("goes to the server as JSON", async () => {
    const asked: [string, RequestInit | undefined][] = [];
    const fetcher = (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
      asked.push([String(input), init]);
      return Promise.resolve(new Response("{}"));
    };
    const api = new Api("http://host/", fetcher as typeof fetch);
    await api.actOnAlarm("a:b:0:1", "shelve", { by: "ada", text: "", for_s: 60 });
    const [[address, init]] = asked as [[string, RequestInit]];
    expect(address).toBe("http://host/api/v1/alarms/a%3Ab%3A0%3A1/shelve");
    expect(init.method).toBe("POST");
    expect(init.body).toBe('{"by":"ada","text":"","for_s":60}');
    expect(new Headers(init.headers).get("Content-Type")).toBe("application/json");
  });
});
