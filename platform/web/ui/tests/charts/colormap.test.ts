import { describe, expect, it } from "vitest";
import { colorGradient, colorTable, viridis } from "../../src/charts/colormap";

/** CIE lightness of an sRGB colour (IEC 61966-2-1, CIE 1976). */
function lightness(color: readonly number[]): number {
  const [red, green, blue] = color.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return luminance > 216 / 24389 ? 116 * Math.cbrt(luminance) - 16 : (24389 / 27) * luminance;
}

describe("the colour scale", () => {
  it("runs from viridis' dark violet to its yellow", () => {
    expect(viridis(0)).toEqual([0x44, 0x01, 0x54]);
    expect(viridis(1)).toEqual([0xfd, 0xe7, 0x25]);
  });

  it("passes through the published colours in between", () => {
    expect(viridis(3 / 9)).toEqual([0x31, 0x68, 0x8e]);
    expect(viridis(6 / 9)).toEqual([0x35, 0xb7, 0x79]);
  });

  it("grows lighter evenly", () => {
    const steps = Array.from({ length: 101 }, (_, index) => lightness(viridis(index / 100)));
    const gains = steps.slice(1).map((step, index) => step - steps[index]!);
    expect(Math.min(...gains)).toBeGreaterThan(0);
    expect(Math.max(...gains)).toBeLessThan(2 * ((steps.at(-1)! - steps[0]!) / 100));
  });

  it("stops at its ends", () => {
    expect(viridis(-3)).toEqual(viridis(0));
    expect(viridis(7)).toEqual(viridis(1));
    expect(viridis(NaN)).toEqual(viridis(0));
  });

  it("is a table of opaque pixels, red in the lowest byte", () => {
    const table = colorTable(2);
    expect([...new Uint8Array(table.buffer)]).toEqual([0x44, 0x01, 0x54, 255, 0xfd, 0xe7, 0x25, 255]);
  });

  it("is a CSS gradient in the same order", () => {
    expect(colorGradient()).toMatch(/^linear-gradient\(to right, rgb\(68 1 84\), .*rgb\(253 231 37\)\)$/);
  });
});
