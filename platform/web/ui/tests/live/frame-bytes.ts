// Frames of the live feed, written byte by byte.

export interface FrameParts {
  id?: number;
  first_row?: number;
  step?: number;
  length?: number;
  times_ns: bigint[];
  /** All rows, one after another. */
  rows: Uint8Array;
}

export function frameBytes(parts: FrameParts): ArrayBuffer {
  const count = parts.times_ns.length;
  const row_bytes = count === 0 ? 0 : parts.rows.length / count;
  const buffer = new ArrayBuffer(32 + 8 * count + parts.rows.length);
  const view = new DataView(buffer);
  view.setUint32(0, parts.id ?? 1, true);
  view.setUint32(4, count, true);
  view.setBigUint64(8, BigInt(parts.first_row ?? 0), true);
  view.setUint32(16, parts.step ?? 1, true);
  view.setUint32(20, row_bytes, true);
  view.setBigUint64(24, BigInt(parts.length ?? (parts.first_row ?? 0) + count), true);
  parts.times_ns.forEach((time_ns, index) => view.setBigInt64(32 + 8 * index, time_ns, true));
  new Uint8Array(buffer, 32 + 8 * count).set(parts.rows);
  return buffer;
}

export function float32Bytes(...values: number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer);
}
