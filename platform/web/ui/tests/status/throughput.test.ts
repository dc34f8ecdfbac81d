import { describe, expect, it } from "vitest";
import { MAX_SAMPLES, ThroughputMeter } from "../../src/status/throughput";

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

  it("restarts with a restarted gateway", () => {
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
