import { describe, expect, it } from "vitest";
import type { ArraySummary, StreamSummary } from "../../src/api/types";
import { firstToShow, isSetAside, outputKind, sortOutputs } from "../../src/charts/outputs";

const array = (reference: string, shape: number[], attrs: object, dtype: unknown = "<f4"): ArraySummary =>
  ({ reference, shape, attrs, dtype, start: 0, stream: "a" }) as ArraySummary;

describe("an array's picture", () => {
  it("follows from its attributes", () => {
    expect(outputKind(array("a:s", [9, 1025], { frequency_step_hz: 5 }))).toBe("spectrum");
    expect(outputKind(array("a:s", [9, 3, 1025], { frequency_step_hz: 5 }))).toBe("spectrum");
    expect(outputKind(array("a:f", [9, 4], { columns: ["a", "b", "c", "d"] }))).toBe("trend");
    expect(outputKind(array("a:p", [9], { rate_hz: 48000 }))).toBe("samples");
    expect(outputKind(array("a:x", [9, 500, 500], {}))).toBe("other");
    expect(outputKind(array("a:r", [9], {}, [["offset", "<u8"]]))).toBe("other");
  });

  it("comes in the order spectrum, score, trend, samples", () => {
    const sorted = sortOutputs([
      array("a:pcm", [9], {}),
      array("a:features", [9, 1], { columns: ["rms"] }),
      array("a:model", [9, 1], { columns: ["score"], kind: "score" }),
      array("a:spectrum", [9, 5], { frequency_step_hz: 5 }),
    ]);
    expect(sorted.map(({ reference }) => reference)).toEqual([
      "a:spectrum",
      "a:model",
      "a:features",
      "a:pcm",
    ]);
  });

  it("is of the present array, not of one that was set aside", () => {
    expect([isSetAside("a:spectrum~1"), isSetAside("a:spectrum")]).toEqual([true, false]);
  });
});

describe("the stream to show first", () => {
  const stream = (reference: string, ...outputs: string[]): StreamSummary =>
    ({ reference, arrays: outputs.map((output) => `${reference}:${output}`) }) as StreamSummary;
  const blade = stream("blade1", "spectrum", "spectrum~1", "spectrum~2");
  const gearbox = stream("gearbox", "features", "spectrum");
  const generator = stream("generator", "features", "spectrum");

  it("has the most outputs, those set aside not counted", () => {
    expect(firstToShow([blade, gearbox, generator], () => true)).toBe(gearbox);
  });

  it("receives data if one does", () => {
    expect(firstToShow([blade, gearbox], (each) => each === blade)).toBe(blade);
    expect(firstToShow([blade, gearbox], () => false)).toBe(gearbox);
  });
});
