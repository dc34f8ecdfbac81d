import { describe, expect, it } from "vitest";
import { parseDtype } from "../../src/live/dtype";
import { FrameInvalid, frameTimes_s, frameValues, parseFrame, rowNumber, withoutFirst } from "../../src/live/frame";
import { float32Bytes, frameBytes } from "./frame-bytes";

const THREE_ROWS = frameBytes({
  id: 7,
  first_row: 2 ** 40,
  step: 4,
  length: 2 ** 40 + 100,
  times_ns: [1_700_000_000_000_000_000n, 1_700_000_000_500_000_000n, -1_500_000_000n],
  rows: float32Bytes(1, 2, 3, 4, 5, 6),
});

describe("a frame", () => {
  it("gives the header's fields, past 32 bits too", () => {
    const frame = parseFrame(THREE_ROWS);
    expect(frame).toMatchObject({
      id: 7,
      count: 3,
      first_row: 2 ** 40,
      step: 4,
      row_bytes: 8,
      length: 2 ** 40 + 100,
    });
    expect(rowNumber(frame, 2)).toBe(2 ** 40 + 8);
  });

  it("gives times in seconds, before the epoch too", () => {
    expect([...frameTimes_s(parseFrame(THREE_ROWS))]).toEqual([1_700_000_000, 1_700_000_000.5, -1.5]);
  });

  it("gives its values without a copy", () => {
    const values = frameValues(parseFrame(THREE_ROWS), parseDtype("<f4"));
    expect([...values]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(values.buffer).toBe(THREE_ROWS);
  });

  it("keeps numbers, times and values together when its first rows are left out", () => {
    const frame = withoutFirst(parseFrame(THREE_ROWS), 2);
    expect(frame.count).toBe(1);
    expect(frame.first_row).toBe(2 ** 40 + 8);
    expect([...frameTimes_s(frame)]).toEqual([-1.5]);
    expect([...frameValues(frame, parseDtype("<f4"))]).toEqual([5, 6]);
  });

  it("may hold no rows", () => {
    expect(parseFrame(frameBytes({ times_ns: [], rows: new Uint8Array() })).count).toBe(0);
  });

  it.each([
    ["shorter than a header", THREE_ROWS.slice(0, 31)],
    ["cut short", THREE_ROWS.slice(0, -1)],
    ["too long", new Uint8Array([...new Uint8Array(THREE_ROWS), 0]).buffer],
    ["of step 0", frameBytes({ step: 0, times_ns: [0n], rows: float32Bytes(1) })],
  ])("is rejected when it is %s", (_, bytes) => {
    expect(() => parseFrame(bytes)).toThrow(FrameInvalid);
  });
});
