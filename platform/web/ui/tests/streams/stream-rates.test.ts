import { describe, expect, it } from "vitest";
import type { StreamSummary } from "../../src/api/types";
import { StreamRates } from "../../src/streams/stream-rates";

const stream = (reference: string, events: number, size: number): StreamSummary =>
  ({ reference, events, size }) as StreamSummary;

describe("the rates of streams", () => {
  it("are differences of totals over time", () => {
    const rates = new StreamRates();
    rates.update([stream("a", 10, 1000)], 0);
    rates.update([stream("a", 30, 5000)], 2000);
    expect(rates.of("a")).toEqual({ events_per_s: 10, bytes_per_s: 2000 });
  });

  it("are calm, and fall to nothing when nothing comes", () => {
    const rates = new StreamRates();
    rates.update([stream("a", 0, 0)], 0);
    rates.update([stream("a", 100, 100)], 1000);
    rates.update([stream("a", 100, 100)], 2000);
    expect(rates.of("a").events_per_s).toBeGreaterThan(50);
    for (let second = 3; second < 90; second++) rates.update([stream("a", 100, 100)], second * 1000);
    expect(rates.of("a").events_per_s).toBe(0);
  });

  it("are of what is read again, each by its own time", () => {
    const rates = new StreamRates();
    rates.update([stream("a", 0, 0), stream("b", 0, 0)], 0);
    rates.update([stream("b", 10, 10)], 1000);
    rates.update([stream("a", 40, 40)], 4000);
    expect([rates.of("a").events_per_s, rates.of("b").events_per_s]).toEqual([10, 10]);
    rates.update([], 60_000);
    expect(rates.of("a").events_per_s).toBe(0);
  });

  it("are 0 for a stream that is new, unknown or was cut back", () => {
    const rates = new StreamRates();
    rates.update([stream("a", 10, 1000)], 0);
    rates.update([stream("a", 5, 500), stream("b", 7, 7)], 1000);
    expect([rates.of("a"), rates.of("b"), rates.of("c")].map(({ events_per_s }) => events_per_s)).toEqual([
      0, 0, 0,
    ]);
  });
});
