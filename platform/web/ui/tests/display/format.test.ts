import { describe, expect, it, vi } from "vitest";
import {
  formatAgo,
  formatClock,
  formatCount,
  formatDecibel,
  formatDuration,
  formatFrequency,
  formatQuantity,
  formatTick,
  formatValue,
  formatZone,
  frequencyUnit,
  outputName,
  parseTime,
  splitReference,
} from "../../src/display/format";

const plain = (text: string): string => text.replaceAll("\u202f", " ").replaceAll("\u2212", "-");

describe("quantities", () => {
  it.each([
    [0, "B/s", "0 B/s"],
    [7, "B", "7 B"],
    [0.5, "/s", "0.50 /s"],
    [0.0123, "/s", "0.012 /s"],
    [999, "B", "999 B"],
    [999.6, "B", "1.00 kB"],
    [1234, "B/s", "1.23 kB/s"],
    [45_600, "B", "45.6 kB"],
    [999_600, "B", "1.00 MB"],
    [3.2e12, "B", "3.20 TB"],
    [-1500, "", "-1.50 k"],
  ])("%d %s reads %s", (value, unit, text) => {
    expect(plain(formatQuantity(value, unit))).toBe(text);
  });

  it("that are not known are a dash", () => {
    expect([formatQuantity(null), formatQuantity(NaN), formatCount(undefined)]).toEqual([
      "\u2013",
      "\u2013",
      "\u2013",
    ]);
  });
});

describe("values", () => {
  it.each([
    [0, "0"],
    [3.14159, "3.142"],
    [-0.25, "-0.25"],
    [12345, "12345"],
    [0.00001234, "1.23e-5"],
    [-2.5e7, "-2.50e7"],
    [Infinity, "\u221e"],
    [NaN, "\u2013"],
  ])("%d reads %s", (value, text) => {
    expect(plain(formatValue(value))).toBe(text);
  });

  it("on an axis are short", () => {
    expect([1e-7, 2.5e-6, 1e6, 40].map((value) => plain(formatTick(value)))).toEqual([
      "1e-7",
      "2.5e-6",
      "1e6",
      "40",
    ]);
  });

  it("in decibels have one decimal", () => {
    expect(plain(formatDecibel(-42.06))).toBe("-42.1 dB");
  });
});

describe("frequencies", () => {
  it.each([
    [0, "0 Hz"],
    [50, "50 Hz"],
    [12.5, "12.5 Hz"],
    [1500, "1.5 kHz"],
    [5_237.4, "5.237 kHz"],
    [2.4e6, "2.4 MHz"],
  ])("%d Hz reads %s", (frequency_hz, text) => {
    expect(plain(formatFrequency(frequency_hz))).toBe(text);
  });

  it("of one axis share a unit", () => {
    expect(frequencyUnit(12_800)).toEqual({ unit: "kHz", divisor: 1000 });
    expect(frequencyUnit(800)).toEqual({ unit: "Hz", divisor: 1 });
  });
});

describe("times", () => {
  it.each([
    [null, "never"],
    [-500, "now"],
    [900, "now"],
    [12_300, "12 s ago"],
    [120_000, "2 min ago"],
    [7_200_000, "2 h ago"],
    [5 * 86_400_000, "5 d ago"],
  ])("%d ms back read %s", (elapsed_ms, text) => {
    expect(formatAgo(elapsed_ms)).toBe(text);
  });

  it("of day are local and may have decimals", () => {
    const epoch_s = new Date(2026, 4, 17, 9, 5, 7).getTime() / 1000;
    expect(formatClock(epoch_s)).toBe("09:05:07");
    expect(formatClock(epoch_s + 0.25, 3)).toBe("09:05:07.250");
    expect(formatClock(epoch_s + 0.9996, 3)).toBe("09:05:07.999");
  });

  it.each([
    [0, "UTC"],
    [-120, "UTC+2"],
    [-330, "UTC+5:30"],
    [210, "UTC-3:30"],
  ])("%d min behind UTC are in the zone %s", (offset_min, text) => {
    const offset = vi.spyOn(Date.prototype, "getTimezoneOffset").mockReturnValue(offset_min);
    expect(plain(formatZone(0))).toBe(text);
    offset.mockRestore();
  });

  it.each([
    [0.08, "80 ms"],
    [4.2, "4.2 s"],
    [200, "3 min 20 s"],
    [120, "2 min"],
    [9000, "2.5 h"],
  ])("%d s last %s", (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });

  it("are read with nine decimals and without any", () => {
    expect(parseTime("2026-05-17T09:05:07.123456789Z")).toBe(Date.UTC(2026, 4, 17, 9, 5, 7, 123));
    expect(parseTime("2026-05-17T09:05:07Z")).toBe(Date.UTC(2026, 4, 17, 9, 5, 7));
    expect([parseTime(null), parseTime("yesterday")]).toEqual([null, null]);
  });
});

describe("references", () => {
  it("are split where they differ from their neighbours", () => {
    expect(splitReference("turbine.t07.blade1")).toEqual({ prefix: "turbine.t07.", leaf: "blade1" });
    expect(splitReference("voice")).toEqual({ prefix: "", leaf: "voice" });
  });

  it("of arrays name their output", () => {
    expect(outputName("turbine.t07:spectrum")).toBe("spectrum");
  });
});
