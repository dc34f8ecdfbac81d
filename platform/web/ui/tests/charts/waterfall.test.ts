import { describe, expect, it } from "vitest";
import { colorTable } from "../../src/charts/colormap";
import { chooseClock, rowPeriod_s } from "../../src/live/row-clock";
import { tickDecimals, tickStep_s, timeTicks } from "../../src/charts/time-ticks";
import { paintLine, pixelEdges } from "../../src/charts/waterfall-image";

const COLORS = colorTable(256);
const RANGE = { low_db: -100, high_db: 0 };

function painted(levels_db: number[], width: number, low = 0, high = levels_db.length): number[] {
  const line = new Uint32Array(width);
  paintLine(line, Float32Array.from(levels_db), pixelEdges(width, low, high, levels_db.length), RANGE);
  return [...line].map((word) => COLORS.indexOf(word));
}

describe("a line of the waterfall", () => {
  it("has the colour of each level, clamped to the range", () => {
    expect(painted([-100, -60, 0, 20, -300], 5)).toEqual([0, 102, 255, 255, 0]);
  });

  it("shows a peak that is narrower than a pixel", () => {
    const levels_db = Array.from({ length: 1000 }, (_, bin) => (bin === 503 ? 0 : -100));
    expect(painted(levels_db, 10).filter((color) => color === 255)).toHaveLength(1);
  });

  it("repeats bins that are wider than a pixel", () => {
    const colors = painted([-100, 0], 8);
    expect(new Set(colors)).toEqual(new Set([0, 255]));
  });

  it("shows a part of the spectrum", () => {
    expect(painted([0, 0, -100, -100, 0, 0], 2, 2, 4)).toEqual([0, 0]);
  });
});

describe("marks on the time axis", () => {
  it("are a round step apart", () => {
    expect([tickStep_s(14, 7), tickStep_s(0.9, 3), tickStep_s(3000, 6)]).toEqual([2, 0.5, 600]);
  });

  it("stand at the rows that pass a round time, newest first", () => {
    const time_s = (age: number): number => 10.3 - age * 0.25;
    expect(timeTicks(20, time_s, 2, 1)).toEqual([
      { age: 1, time_s: 10 },
      { age: 9, time_s: 8 },
      { age: 17, time_s: 6 },
    ]);
  });

  it("keep apart where rows are missing", () => {
    const times_s = [100, 99, 50, 10, 9];
    expect(timeTicks(5, (age) => times_s[age]!, 10, 3).map(({ age }) => age)).toEqual([0, 3]);
  });

  it("have the decimals that they need", () => {
    expect([tickDecimals(5), tickDecimals(0.5), tickDecimals(0.02), tickDecimals(0.001)]).toEqual([
      0, 1, 2, 3,
    ]);
  });
});

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
