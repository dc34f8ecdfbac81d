import { describe, expect, it } from "vitest";
import { laneRange, niceCeiling, yRange } from "../../src/charts/scales";

describe("the range of a level axis", () => {
  it("leaves room around the values", () => {
    const [low, high] = yRange(50, 60);
    expect([low < 50, high > 60]).toEqual([true, true]);
  });

  it("starts at zero for what is never negative and comes near it", () => {
    expect(yRange(1, 100)[0]).toBe(0);
    expect(yRange(-1, 100)[0]).toBeLessThan(-1);
  });

  it.each([
    [5, 5],
    [0, 0],
    [null, null],
    [Infinity, -Infinity],
    [NaN, 1],
  ])("has a height for %s to %s", (low, high) => {
    const [bottom, top] = yRange(low, high);
    expect(top).toBeGreaterThan(bottom);
  });
});

describe("the range of a lane", () => {
  it("puts the values between the lane's edges", () => {
    const lanes = 4;
    for (let lane = 0; lane < lanes; lane++) {
      const [low, high] = laneRange([10, 20], lane, lanes);
      const height = (value: number): number => (value - low) / (high - low);
      expect(height(20)).toBeCloseTo(1 - lane / lanes, 12);
      expect(height(10)).toBeCloseTo(1 - (lane + 1) / lanes, 12);
    }
  });

  it("is the whole height for one lane", () => {
    expect(laneRange([10, 20], 0, 1)).toEqual([10, 20]);
  });
});

describe("the end of a linear axis", () => {
  it.each([
    [0.0031, 0.005],
    [1, 1],
    [1.2, 2],
    [51, 100],
    [0, 1],
    [NaN, 1],
  ])("for %d is %d", (value, end) => {
    expect(niceCeiling(value)).toBeCloseTo(end, 12);
  });
});
