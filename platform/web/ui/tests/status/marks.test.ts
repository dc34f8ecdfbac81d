import { describe, expect, it } from "vitest";
import { alarmInWords, markOfAlarm, markOfStream, streamInWords } from "../../src/status/marks";

const alarm = (grade: number, state: "raised" | "acknowledged" | "shelved") => ({
  reference: "a:x:0:1",
  grade,
  state,
  open: 1,
});
const step = { step: "model", message: "boom", time_ns: 0, times: 1 };
const behind = { step: "condition", reason: "slow" };

describe("the mark of a stream", () => {
  it("is that of its worst alarm, whatever its data does", () => {
    expect(markOfStream({ alarm: alarm(2, "raised"), behind, failing: [step] })).toBe("danger");
    expect(markOfStream({ alarm: alarm(2, "acknowledged") })).toBe("danger-seen");
    expect(markOfStream({ alarm: alarm(1, "raised") })).toBe("warning");
    expect(markOfStream({ alarm: alarm(1, "acknowledged") })).toBe("warning-seen");
  });

  it("is a data fault while a step fails or is late, and grey while nothing is wrong", () => {
    expect(markOfStream({ alarm: alarm(2, "shelved"), behind })).toBe("fault");
    expect(markOfStream({ failing: [step] })).toBe("fault");
    expect(markOfStream({ alarm: alarm(2, "shelved") })).toBe("shelved");
    expect(markOfStream({ alarm: null, failing: [], behind: null })).toBe("ok");
    expect(markOfStream({})).toBe("ok");
  });

  it("has words", () => {
    expect(streamInWords({ alarm: alarm(2, "raised"), behind, failing: [step] })).toBe(
      "Danger \u00b7 failing: model \u00b7 behind: condition",
    );
    expect(streamInWords({ alarm: alarm(1, "acknowledged") })).toBe("Warning, acknowledged");
    expect(streamInWords({ failing: [step, step] })).toBe("2 failing steps");
    expect(streamInWords({})).toBe("");
  });
});

describe("the mark of an alarm", () => {
  it("is grey once it is cleared or shelved", () => {
    expect(markOfAlarm({ grade: 2, state: "cleared" })).toBe("returned");
    expect(markOfAlarm({ grade: 2, state: "shelved" })).toBe("shelved");
    expect(alarmInWords({ grade: 1, state: "shelved" })).toBe("Warning, shelved");
  });
});
