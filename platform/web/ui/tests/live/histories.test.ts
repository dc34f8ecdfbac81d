import { describe, expect, it } from "vitest";
import { LevelHistory, MAX_BYTES, MAX_ROWS, historyRows } from "../../src/live/level-history";
import { AutoLevelRange } from "../../src/live/level-range";
import { SlidingColumns, windowRows } from "../../src/live/sliding-columns";

describe("the history of levels", () => {
  it("gives rows newest first, in decibels, with their times and numbers", () => {
    const history = new LevelHistory(2);
    history.add(Float32Array.of(0, 1, 10), 1, 100.5, 7);
    history.add(Float64Array.of(100, 0.001), 0, 101.5, 8);
    expect([...history.levels(0)].map((level_db) => Math.round(level_db))).toEqual([20, -30]);
    expect([...history.levels(1)]).toEqual([0, 10]);
    expect([history.time_s(1), history.rowNumber(0)]).toEqual([100.5, 8]);
  });

  it("keeps the newest rows and counts all", () => {
    const history = new LevelHistory(1);
    for (let row = 0; row < history.capacity + 10; row++) history.add(Float32Array.of(1), 0, row, row);
    expect([history.count, history.total]).toEqual([history.capacity, history.capacity + 10]);
    expect(history.rowNumber(0)).toBe(history.capacity + 9);
    expect(history.rowNumber(history.count - 1)).toBe(10);
  });

  it("shows no power, and less, as a finite level", () => {
    const history = new LevelHistory(3);
    history.add(Float32Array.of(0, -1, NaN), 0, 0, 0);
    expect([...history.levels(0)].every(Number.isFinite)).toBe(true);
  });

  it("is bounded in rows and in bytes", () => {
    expect(historyRows(1025)).toBe(MAX_ROWS);
    expect(historyRows(65_537) * 65_537 * 4).toBeLessThanOrEqual(MAX_BYTES);
  });
});

describe("the range of levels", () => {
  const noise = (floor_db: number): Float32Array =>
    Float32Array.from({ length: 1000 }, (_, bin) => floor_db + (bin % 10) + (bin === 500 ? 60 : 0));

  it("spans from the noise to above the highest peak, in steps of 5 dB", () => {
    const auto = new AutoLevelRange();
    auto.add(noise(-98));
    expect(auto.update()).toBe(true);
    expect(auto.range.high_db).toBe(-35);
    expect(auto.range.low_db).toBeGreaterThanOrEqual(-105);
    expect(auto.range.low_db).toBeLessThanOrEqual(-95);
  });

  it("stays where the signal stays", () => {
    const auto = new AutoLevelRange();
    let changes = 0;
    for (let row = 0; row < 50; row++) {
      auto.add(noise(-98 + Math.sin(row)));
      if (auto.update()) changes += 1;
    }
    expect(changes).toBeLessThanOrEqual(3);
  });

  it("widens at once for a louder signal and narrows again after it", () => {
    const auto = new AutoLevelRange();
    auto.add(noise(-98));
    auto.update();
    auto.add(noise(-58));
    auto.update();
    expect(auto.range.high_db).toBe(5);
    for (let row = 0; row < 40; row++) {
      auto.add(noise(-98));
      auto.update();
    }
    expect(auto.range.high_db).toBeLessThan(-15);
  });

  it("does not follow digital silence", () => {
    const auto = new AutoLevelRange();
    auto.add(new Float32Array(100).fill(-400));
    expect(auto.update()).toBe(false);
  });
});

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

  it("keep fewer rows where there are many columns", () => {
    expect(windowRows(1)).toBe(8192);
    expect(windowRows(1000)).toBeLessThan(1100);
  });

  it("have no last value while they are empty", () => {
    expect(new SlidingColumns(1, 4).last(0)).toBeNaN();
  });
});
