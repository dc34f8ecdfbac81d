import { describe, expect, it } from "vitest";
import { chooseClock, rowPeriod_s } from "../../src/live/row-clock";

describe("the clock of rows", () => {
  it("is the events' where rows come as they are measured", () => {
    expect(chooseClock(100, 4, 0.04)).toBe("event");
    expect(chooseClock(100, 300, null)).toBe("event");
  });

  it("is the signal's where a recording came in one go", () => {
    expect(chooseClock(100, 0.01, 0.04)).toBe("signal");
    expect(chooseClock(100, 0, null)).toBe("row");
  });

  it("takes the period from hop or window and rate", () => {
    expect(rowPeriod_s({ rate_hz: 1000, hop: 500, window: "hann" })).toBe(0.5);
    expect(rowPeriod_s({ rate_hz: 1000, window: 250 })).toBe(0.25);
    expect(rowPeriod_s({ rate_hz: 1000 })).toBe(0.001);
    expect(rowPeriod_s({ columns: ["a"] })).toBeNull();
  });
});
