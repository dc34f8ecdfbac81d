import { describe, expect, it } from "vitest";
import { SlidingColumns, windowRows } from "../../src/live/sliding-columns";

describe("sliding columns", () => {
  it("give the newest rows as contiguous views, whatever was there before", () => {
    const rows = new SlidingColumns(2, 8);
    for (let row = 0; row < 100; row++) {
      rows.add((column) => row * 10 + column);
      const kept = Array.from({ length: Math.min(row + 1, 8) }, (_, index) => row - Math.min(row, 7) + index);
      expect([...rows.column(0)]).toEqual(kept.map((each) => each * 10));
      expect([...rows.column(1)]).toEqual(kept.map((each) => each * 10 + 1));
    }
    expect([rows.count, rows.last(1)]).toEqual([8, 991]);
  });

  it("keep fewer rows of many columns", () => {
    expect(windowRows(1)).toBe(8192);
    expect(windowRows(1000)).toBeLessThan(1100);
  });

  it("have no last value while they are empty", () => {
    expect(new SlidingColumns(1, 4).last(0)).toBeNaN();
  });
});
