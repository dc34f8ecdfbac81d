import { describe, expect, it } from "vitest";
import { LevelHistory, MAX_BYTES, MAX_ROWS, historyRows } from "../../src/live/level-history";

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
