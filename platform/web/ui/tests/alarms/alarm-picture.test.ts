import { describe, expect, it } from "vitest";
import { comparedRows, linePath, meanDecibel, rangeOf, rowsAround } from "../../src/alarms/alarm-picture";

describe("the picture of an alarm", () => {
  it("is of the rows around it", () => {
    expect(rowsAround({ row: 200 })).toEqual({ first: 110, stop: 230 });
    expect(rowsAround({ row: 5 })).toEqual({ first: 0, stop: 35 });
  });

  it("is a line that null breaks", () => {
    expect(linePath([0, 5, null, 10], { lowest: 0, highest: 10 }, 30, 100)).toBe("M0.0 100.0L10.0 50.0M30.0 0.0");
    expect(linePath([], { lowest: 0, highest: 1 }, 30, 100)).toBe("");
  });

  it("compares spectra with earlier ones, in decibels", () => {
    expect(meanDecibel([[1, 10, null], [1, 190, 0]])).toEqual([0, 20, null]);
    expect(meanDecibel([[[100], [1]], [[100], [1]]])).toEqual([20]);
    expect(meanDecibel([])).toEqual([]);
    const rows = { array: "a", first: 100, count: 50 };
    expect(comparedRows(rows, 0)).toEqual({ now: [142, 150], before: [46, 54] });
    expect(comparedRows(rows, 60)).toEqual({ now: [142, 150], before: [76, 84] });
    expect(comparedRows({ array: "a", first: 3, count: 2 }, 0)).toEqual({ now: [3, 5], before: [0, 3] });
  });

  it("includes the levels", () => {
    expect(rangeOf([1, null, 3], [6, 10])).toEqual({ lowest: 0, highest: 10.5 });
    expect(rangeOf([-2, 1], [null, null])).toEqual({ lowest: -2, highest: 1.05 });
    expect(rangeOf([null], [null, null])).toEqual({ lowest: 0, highest: 1 });
    expect(rangeOf([0], [null, null])).toEqual({ lowest: 0, highest: 1 });
  });
});
