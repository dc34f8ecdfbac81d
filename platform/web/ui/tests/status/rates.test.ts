import { describe, expect, it } from "vitest";
import type { StreamSummary } from "../../src/api/api";
import { stepFailures } from "../../src/status/failures";
import { StreamRates } from "../../src/streams/stream-rates";
import { MAX_SAMPLES, ThroughputMeter } from "../../src/status/throughput";

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

  it("are none where a stream is new, unknown or was cut back", () => {
    const rates = new StreamRates();
    rates.update([stream("a", 10, 1000)], 0);
    rates.update([stream("a", 5, 500), stream("b", 7, 7)], 1000);
    expect([rates.of("a"), rates.of("b"), rates.of("c")].map(({ events_per_s }) => events_per_s)).toEqual([
      0, 0, 0,
    ]);
  });
});

describe("the throughput", () => {
  const totals = (second: number, events: number, bytes: number) => ({
    time_ns: second * 1e9,
    events_total: events,
    bytes_total: bytes,
  });

  it("is the difference of totals over the newest seconds", () => {
    const meter = new ThroughputMeter();
    for (let second = 0; second <= 10; second++) meter.add(totals(second, second * 100, second * 2000));
    expect(meter.latest).toEqual({ events_per_s: 100, bytes_per_s: 2000 });
  });

  it("is not known after one reading", () => {
    const meter = new ThroughputMeter();
    meter.add(totals(0, 5, 5));
    expect(meter.latest).toBeNull();
  });

  it("begins again after the gateway was started again", () => {
    const meter = new ThroughputMeter();
    meter.add(totals(0, 1000, 1000));
    meter.add(totals(1, 2000, 2000));
    meter.add(totals(2, 10, 10));
    meter.add(totals(3, 20, 20));
    expect(meter.latest).toEqual({ events_per_s: 10, bytes_per_s: 10 });
  });

  it("takes an unchanged reading for the same one", () => {
    const meter = new ThroughputMeter();
    meter.add(totals(0, 0, 0));
    meter.add(totals(1, 10, 10));
    meter.add(totals(1, 10, 10));
    expect(meter.samples).toHaveLength(1);
  });

  it("remembers a bounded number of samples", () => {
    const meter = new ThroughputMeter();
    for (let second = 0; second < 500; second++) meter.add(totals(second, second, second));
    expect(meter.samples).toHaveLength(MAX_SAMPLES);
  });
});

describe("failing steps", () => {
  const failure = (stream: string, step: string, time_ms: number, recovered_ns: number | null = null) => ({
    stream,
    step,
    message: `at ${time_ms}`,
    time_ns: time_ms * 1e6,
    recovered_ns,
  });

  it("are counted once each, with their newest failure, newest first", () => {
    const { failing } = stepFailures([failure("a", "model", 1), failure("b", "model", 2), failure("a", "model", 3)]);
    expect(failing.map(({ stream, message }) => [stream, message])).toEqual([
      ["a", "at 3"],
      ["b", "at 2"],
    ]);
  });

  it("fail until they work again, however long ago they failed", () => {
    const { failing, recovered } = stepFailures([failure("a", "model", 1), failure("b", "model", 0, 7)]);
    expect(failing.map(({ stream }) => stream)).toEqual(["a"]);
    expect(recovered.map(({ stream }) => stream)).toEqual(["b"]);
  });

  it("are all failing if the worker does not say whether they worked again", () => {
    const { recovered_ns: _, ...old } = failure("a", "model", 1);
    expect(stepFailures([old]).failing).toHaveLength(1);
  });
});
