import { beforeEach, describe, expect, it } from "vitest";
import { LiveClient } from "../../src/live/live";
import { SpectrumFeed, powerUnit } from "../../src/live/spectrum-feed";
import { TrendFeed, columnNames } from "../../src/live/trend-feed";
import { FakeEnvironment } from "./fake-socket";
import { float32Bytes, frameBytes } from "./frame-bytes";

const QUIET = { changed: () => {}, rowsChanged: () => {} };

let world: FakeEnvironment;
let client: LiveClient;

beforeEach(() => {
  world = new FakeEnvironment();
  client = new LiveClient("ws://host/", world);
  client.start();
  world.socket.open();
});

function grant(row_shape: number[], attrs: object, dtype = "<f4"): void {
  world.socket.say({
    op: "subscribed",
    id: world.socket.asked.id,
    array: "a:b",
    dtype,
    row_shape,
    attrs,
    next: 0,
  });
}

function send(first_row: number, rows: number[][]): void {
  const times_ns = rows.map((_, index) => BigInt(first_row + index) * 1_000_000_000n);
  world.socket.deliver(
    frameBytes({ id: world.socket.asked.id, first_row, times_ns, rows: float32Bytes(...rows.flat()) }),
  );
}

describe("a spectrum feed", () => {
  const attrs = {
    frequency_step_hz: 12.5,
    rate_hz: 25600,
    hop: 1024,
    unit: "g\u00b2/Hz",
    scaling: "density",
  };
  const start = (): SpectrumFeed => {
    const feed = new SpectrumFeed(client, "a:b", QUIET);
    feed.start();
    return feed;
  };
  const newest = (feed: SpectrumFeed): number[] => [...feed.history!.levels(0)].map(Math.round);

  it("keeps levels, peaks and an average of one channel", () => {
    const feed = start();
    grant([3], attrs);
    send(0, [
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
    grant([2, 3], attrs);
    send(5, [[1, 1, 1, 10, 10, 10]]);
    expect([feed.channels, newest(feed)]).toEqual([2, [0, 0, 0]]);
    feed.choose(1);
    expect(world.socket.asked.from).toBe(-feed.history!.capacity);
    grant([2, 3], attrs);
    send(5, [[1, 1, 1, 10, 10, 10]]);
    expect([feed.history!.count, newest(feed)]).toEqual([1, [10, 10, 10]]);
  });

  it("finds the strongest level of what is shown, the constant part and the bin beside it aside", () => {
    const feed = start();
    grant([5], attrs);
    expect(feed.strongest(0, 50)).toBeNull();
    send(0, [[1000, 500, 10, 1, 100]]);
    expect(feed.strongest(0, 50)).toEqual({ frequency_hz: 50, level_db: 20 });
    expect(feed.strongest(10, 40)).toEqual({ frequency_hz: 25, level_db: 10 });
    expect(feed.strongest(0, 13)!.frequency_hz).toBe(12.5);
    expect(feed.level(26)).toEqual({ frequency_hz: 25, level_db: 10 });
    expect(feed.level(1e9)!.frequency_hz).toBe(50);
  });

  it("holds still while it is paused and loses nothing by it", () => {
    const feed = start();
    grant([2], attrs);
    send(0, [[1, 1]]);
    feed.stop();
    expect(feed.paused).toBe(true);
    feed.start();
    expect(world.socket.asked.from).toBe(1);
  });

  it("says why it cannot draw", () => {
    const feed = start();
    grant([3], attrs, "<c8");
    expect([feed.state, feed.detail]).toEqual(["failed", expect.stringContaining("<c8")]);
  });

  it("names the unit of its levels", () => {
    expect(powerUnit(attrs)).toBe("g\u00b2/Hz");
    expect(powerUnit({ scaling: "spectrum" })).toBe("1");
    expect(powerUnit({})).toBe("1/Hz");
  });
});

describe("a trend feed", () => {
  it("keeps each column by its name", () => {
    const feed = new TrendFeed(client, "a:b", QUIET);
    feed.start();
    grant([2], { columns: ["rms", "peak"] });
    send(0, [
      [1, 2],
      [3, 4],
    ]);
    expect(feed.names).toEqual(["rms", "peak"]);
    expect([[...feed.values(0)], [...feed.values(1)]]).toEqual([
      [1, 3],
      [2, 4],
    ]);
    expect([...feed.places("event")]).toEqual([0, 1]);
  });

  it("keeps what it has when the connection comes back", () => {
    const feed = new TrendFeed(client, "a:b", QUIET);
    feed.start();
    grant([1], { columns: ["score"] });
    send(0, [[1], [2]]);
    world.socket.break();
    world.reconnect();
    grant([1], { columns: ["score"] });
    send(2, [[3]]);
    expect([...feed.values(0)]).toEqual([1, 2, 3]);
  });

  it("places samples by their number: their events are only their parcels", () => {
    const feed = new TrendFeed(client, "a:b", QUIET);
    feed.start();
    grant([], { rate_hz: 8 });
    send(50, [[1], [2]]);
    expect(feed.clock).toBe("signal");
    expect([...feed.places("signal")]).toEqual([6.25, 6.375]);
  });

  it("says which part of a window it has", () => {
    const feed = new TrendFeed(client, "a:b", QUIET);
    feed.start();
    grant([1], { columns: ["score"] });
    expect(feed.shortage(0)).toBe("");
    send(0, [[1], [2]]);
    expect([feed.shortage(0), feed.shortage(600)]).toEqual(["", ""]);
    const other = new TrendFeed(client, "a:c", QUIET);
    other.start();
    grant([1], { columns: ["score"] });
    send(96_000, [[1], [2], [3]]); // one a second
    expect(other.shortage(0)).toBe("last 3 of 96,003 rows");
    expect(other.shortage(600)).toBe("last 3 of 96,003 rows");
    expect(other.shortage(2)).toBe("");
  });

  it("numbers columns that have no names", () => {
    expect(columnNames({}, 1)).toEqual(["value"]);
    expect(columnNames({ columns: ["one"] }, 2)).toEqual(["channel 1", "channel 2"]);
  });
});
