// The binary frames of the live feed: a header, the rows' times, the rows. Rows are not copied.
//
//   0  u32 id          subscription
//   4  u32 count       rows in this frame
//   8  u64 first_row   index of the first
//  16  u32 step        distance between rows: 1, more if the server skips rows
//  20  u32 row_bytes
//  24  u64 length      rows in the array now
//  32  i64 × count     times in ns since the epoch
//      count × row_bytes
//
// All little endian.

import type { Dtype, Numbers } from "./dtype";

const HEADER_BYTES = 32;
const TIME_BYTES = 8;

export interface Frame {
  readonly id: number;
  readonly count: number;
  readonly first_row: number;
  readonly step: number;
  readonly row_bytes: number;
  readonly length: number;
  readonly buffer: ArrayBuffer;
  /** Where the times begin in `buffer`. */
  readonly times_offset: number;
  /** Where the rows begin in `buffer`. */
  readonly rows_offset: number;
}

export class FrameInvalid extends Error {
  constructor(reason: string) {
    super(`Malformed live frame: ${reason}.`);
    this.name = "FrameInvalid";
  }
}

/** Throws FrameInvalid if the bytes are not exactly one frame. */
export function parseFrame(buffer: ArrayBuffer): Frame {
  if (buffer.byteLength < HEADER_BYTES)
    throw new FrameInvalid(`${buffer.byteLength} bytes are less than a header`);
  const view = new DataView(buffer);
  const count = view.getUint32(4, true);
  const step = view.getUint32(16, true);
  const row_bytes = view.getUint32(20, true);
  const expected_bytes = HEADER_BYTES + count * (TIME_BYTES + row_bytes);
  if (buffer.byteLength !== expected_bytes) {
    throw new FrameInvalid(
      `${count} rows of ${row_bytes} bytes make ${expected_bytes}, not ${buffer.byteLength}`,
    );
  }
  if (step === 0) throw new FrameInvalid("the step is 0");
  return {
    id: view.getUint32(0, true),
    count,
    first_row: Number(view.getBigUint64(8, true)),
    step,
    row_bytes,
    length: Number(view.getBigUint64(24, true)),
    buffer,
    times_offset: HEADER_BYTES,
    rows_offset: HEADER_BYTES + count * TIME_BYTES,
  };
}

/** The array's index of row `index` of the frame. */
export function rowNumber(frame: Frame, index: number): number {
  return frame.first_row + index * frame.step;
}

/** The event times of the frame's rows, seconds since the epoch (to a microsecond). */
export function frameTimes_s(frame: Frame): Float64Array {
  const view = new DataView(frame.buffer, frame.times_offset, frame.count * TIME_BYTES);
  const times_s = new Float64Array(frame.count);
  for (let index = 0; index < frame.count; index++) {
    // Two halves instead of a BigInt: no allocation per row.
    const high = view.getInt32(index * TIME_BYTES + 4, true);
    times_s[index] = (high * 4294967296 + view.getUint32(index * TIME_BYTES, true)) / 1e9;
  }
  return times_s;
}

/** All rows of the frame, one after another. */
export function frameValues(frame: Frame, dtype: Dtype): Numbers {
  return dtype.decode(frame.buffer, frame.rows_offset, (frame.count * frame.row_bytes) / dtype.item_bytes);
}

/** The frame without its first `rows` rows. */
export function withoutFirst(frame: Frame, rows: number): Frame {
  return {
    ...frame,
    count: frame.count - rows,
    first_row: frame.first_row + rows * frame.step,
    times_offset: frame.times_offset + rows * TIME_BYTES,
    rows_offset: frame.rows_offset + rows * frame.row_bytes,
  };
}
