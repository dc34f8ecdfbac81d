// Decodes arrays by NumPy's dtype strings (`<f4`, `<i2`, …).

export type Numbers =
  Float32Array | Float64Array | Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array;

export interface Dtype {
  readonly text: string;
  readonly item_bytes: number;
  /** `count` items from `offset` on; a view on `buffer` if byte order and alignment allow it. */
  decode(buffer: ArrayBuffer, offset: number, count: number): Numbers;
}

export class DtypeUnsupported extends Error {
  constructor(text: string) {
    super(`Values of dtype ${text} cannot be drawn. Supported are real numbers of up to 8 bytes.`);
    this.name = "DtypeUnsupported";
  }
}

interface NumbersConstructor {
  new (buffer: ArrayBuffer, offset: number, count: number): Numbers;
  new (count: number): Numbers;
}

const NATIVE: Record<string, NumbersConstructor> = {
  f4: Float32Array,
  f8: Float64Array,
  i1: Int8Array,
  u1: Uint8Array,
  b1: Uint8Array,
  i2: Int16Array,
  u2: Uint16Array,
  i4: Int32Array,
  u4: Uint32Array,
};

type ReadItem = (view: DataView, offset: number, little: boolean) => number;

const ITEM: Record<string, ReadItem> = {
  f2: (view, offset, little) => halfToNumber(view.getUint16(offset, little)),
  f4: (view, offset, little) => view.getFloat32(offset, little),
  f8: (view, offset, little) => view.getFloat64(offset, little),
  i2: (view, offset, little) => view.getInt16(offset, little),
  u2: (view, offset, little) => view.getUint16(offset, little),
  i4: (view, offset, little) => view.getInt32(offset, little),
  u4: (view, offset, little) => view.getUint32(offset, little),
  i8: (view, offset, little) => Number(view.getBigInt64(offset, little)),
  u8: (view, offset, little) => Number(view.getBigUint64(offset, little)),
};

const LITTLE_ENDIAN_HOST = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** IEEE 754 binary16. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Throws DtypeUnsupported for complex numbers, text and records. */
export function parseDtype(text: unknown): Dtype {
  const match = typeof text === "string" ? /^([<>|=]?)([a-z])(\d+)$/.exec(text) : null;
  if (!match) throw new DtypeUnsupported(typeof text === "string" ? text : "with fields");
  const [whole, order, kind, size] = match as unknown as [string, string, string, string];
  const code = kind + size;
  const native = NATIVE[code];
  const item = ITEM[code];
  if (!native && !item) throw new DtypeUnsupported(whole);
  const item_bytes = Number(size);
  const little = order !== ">";
  const same_order = item_bytes === 1 || little === LITTLE_ENDIAN_HOST;
  return {
    text: whole,
    item_bytes,
    decode(buffer, offset, count) {
      if (native && same_order) {
        if (offset % item_bytes === 0) return new native(buffer, offset, count);
        return new native(buffer.slice(offset, offset + count * item_bytes), 0, count);
      }
      const read = item as ReadItem;
      const view = new DataView(buffer, offset, count * item_bytes);
      const numbers = native ? new native(count) : new Float64Array(count);
      for (let index = 0; index < count; index++) numbers[index] = read(view, index * item_bytes, little);
      return numbers;
    },
  };
}
