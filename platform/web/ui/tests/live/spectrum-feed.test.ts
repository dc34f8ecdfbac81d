import { beforeEach, describe, expect, it } from "vitest";
import { SpectrumFeed, powerUnit } from "../../src/live/spectrum-feed";
import { FeedServer, QUIET } from "./feed-server";

let server: FeedServer;

beforeEach(() => {
  server = new FeedServer();
});

describe("a spectrum feed", () => {
  const attrs = {
    frequency_step_hz: 12.5,
    rate_hz: 25600,
    hop: 1024,
    unit: "g\u00b2/Hz",
    scaling: "density",
  };
  const start = (): SpectrumFeed => {
    const feed = new SpectrumFeed(server.client, "a:b", QUIET);
    feed.start();
    return feed;
  };
  const newest = (feed: SpectrumFeed): number[] => [...feed.history!.levels(0)].map(Math.round);

  it("keeps levels, peaks and an average of one channel", () => {
    const feed = start();
    server.grant([3], attrs);
    server.send(0, [
      [1, 10, 100],
      [1, 100, 0.1],
    ]);
    expect(newest(feed)).toEqual([0, 20, -10]);
    expect([...feed.peak_db].map(Math.round)).toEqual([0, 20, 20]);
    expect(feed.average[1]).toBeCloseTo(10 + 90 * 0.05, 4);
    expect([feed.highest_hz, feed.row_period_s, feed.state]).toEqual([25, 0.04, "live"]);
  });

  it("takes one channel of many, and another from as far back as it keeps", () => {
    const feed = start();
    server.grant([2, 3], attrs);
    server.send(5, [[1, 1, 1, 10, 10, 10]]);
    expect([feed.channels, newest(feed)]).toEqual([2, [0, 0, 0]]);
    feed.choose(1);
    expect(server.asked_from).toBe(-feed.history!.capacity);
    server.grant([2, 3], attrs);
    server.send(5, [[1, 1, 1, 10, 10, 10]]);
    expect([feed.history!.count, newest(feed)]).toEqual([1, [10, 10, 10]]);
  });

  it("finds the strongest level in view, without the constant part and the next bin", () => {
    const feed = start();
    server.grant([5], attrs);
    expect(feed.strongest(0, 50)).toBeNull();
    server.send(0, [[1000, 500, 10, 1, 100]]);
    expect(feed.strongest(0, 50)).toEqual({ frequency_hz: 50, level_db: 20 });
    expect(feed.strongest(10, 40)).toEqual({ frequency_hz: 25, level_db: 10 });
    expect(feed.strongest(0, 13)!.frequency_hz).toBe(12.5);
    expect(feed.level(26)).toEqual({ frequency_hz: 25, level_db: 10 });
    expect(feed.level(1e9)!.frequency_hz).toBe(50);
  });

  it("resumes after a pause without a gap", () => {
    const feed = start();
    server.grant([2], attrs);
    server.send(0, [[1, 1]]);
    feed.stop();
    expect(feed.paused).toBe(true);
    feed.start();
    expect(server.asked_from).toBe(1);
  });

  it("reports why it fails", () => {
    const feed = start();
    server.grant([3], attrs, "<c8");
    expect([feed.state, feed.detail]).toEqual(["failed", expect.stringContaining("<c8")]);
  });

  it("names the unit of its levels", () => {
    expect(powerUnit(attrs)).toBe("g\u00b2/Hz");
    expect(powerUnit({ scaling: "spectrum" })).toBe("1");
    expect(powerUnit({})).toBe("1/Hz");
  });
});
