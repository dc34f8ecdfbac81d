import { describe, expect, it } from "vitest";
import { colorTable } from "../../src/charts/colormap";
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
