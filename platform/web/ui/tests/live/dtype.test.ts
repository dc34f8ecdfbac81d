import { describe, expect, it } from "vitest";
import { DtypeUnsupported, parseDtype } from "../../src/live/dtype";

function decoded(dtype: string, write: (view: DataView) => void, count: number, offset = 0): number[] {
  const buffer = new ArrayBuffer(64);
  write(new DataView(buffer));
  return [...parseDtype(dtype).decode(buffer, offset, count)];
}

describe("a dtype", () => {
  it.each([
    ["<f4", (view: DataView) => view.setFloat32(8, 1.5, true), 1.5],
    [">f4", (view: DataView) => view.setFloat32(8, 1.5, false), 1.5],
    ["<f8", (view: DataView) => view.setFloat64(8, Math.PI, true), Math.PI],
    [">f8", (view: DataView) => view.setFloat64(8, Math.PI, false), Math.PI],
    ["<i2", (view: DataView) => view.setInt16(8, -2, true), -2],
    [">i2", (view: DataView) => view.setInt16(8, -2, false), -2],
    ["<u2", (view: DataView) => view.setUint16(8, 65535, true), 65535],
    ["<i4", (view: DataView) => view.setInt32(8, -70000, true), -70000],
    ["<u4", (view: DataView) => view.setUint32(8, 4294967295, true), 4294967295],
    ["|i1", (view: DataView) => view.setInt8(8, -3), -3],
    ["|u1", (view: DataView) => view.setUint8(8, 200), 200],
    ["|b1", (view: DataView) => view.setUint8(8, 1), 1],
    ["<i8", (view: DataView) => view.setBigInt64(8, -(2n ** 40n), true), -(2 ** 40)],
    ["<u8", (view: DataView) => view.setBigUint64(8, 2n ** 50n, true), 2 ** 50],
    ["<f2", (view: DataView) => view.setUint16(8, 0xc500, true), -5],
  ])("%s becomes numbers", (dtype, write, value) => {
    expect(decoded(dtype, write, 1, 8)).toEqual([value]);
  });

  it("reads where the bytes are not aligned", () => {
    expect(decoded("<f8", (view) => view.setFloat64(3, 2.25, true), 1, 3)).toEqual([2.25]);
  });

  it("knows the small, the infinite and the undefined of half precision", () => {
    const halves = [0x0001, 0x7c00, 0xfc00, 0x7e00];
    const numbers = decoded(
      "<f2",
      (view) => halves.forEach((bits, at) => view.setUint16(2 * at, bits, true)),
      4,
    );
    expect(numbers).toEqual([2 ** -24, Infinity, -Infinity, NaN]);
  });

  it.each(["<c8", "<U3", "V32", "", [["offset", "<u8"]]])("%j is rejected by name", (dtype) => {
    expect(() => parseDtype(dtype)).toThrow(DtypeUnsupported);
  });
});
