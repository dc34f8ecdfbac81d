import { describe, expect, it } from "vitest";
import { tickDecimals, tickStep_s, timeTicks } from "../../src/charts/time-ticks";

describe("marks on the time axis", () => {
  it("are a round step apart", () => {
    expect([tickStep_s(14, 7), tickStep_s(0.9, 3), tickStep_s(3000, 6)]).toEqual([2, 0.5, 600]);
  });

  it("are at the rows that pass a round time, newest first", () => {
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
