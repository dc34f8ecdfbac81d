import { beforeEach, describe, expect, it } from "vitest";
import { TrendFeed, columnNames } from "../../src/live/trend-feed";
import { FeedServer, QUIET } from "./feed-server";

let server: FeedServer;

beforeEach(() => {
  server = new FeedServer();
});

describe("a trend feed", () => {
  it("keeps each column by its name", () => {
    const feed = new TrendFeed(server.client, "a:b", QUIET);
    feed.start();
    server.grant([2], { columns: ["rms", "peak"] });
    server.send(0, [
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
    const feed = new TrendFeed(server.client, "a:b", QUIET);
    feed.start();
    server.grant([1], { columns: ["score"] });
    server.send(0, [[1], [2]]);
    server.world.socket.break();
    server.world.reconnect();
    server.grant([1], { columns: ["score"] });
    server.send(2, [[3]]);
    expect([...feed.values(0)]).toEqual([1, 2, 3]);
  });

  it("places samples by their number: their events are only their parcels", () => {
    const feed = new TrendFeed(server.client, "a:b", QUIET);
    feed.start();
    server.grant([], { rate_hz: 8 });
    server.send(50, [[1], [2]]);
    expect(feed.clock).toBe("signal");
    expect([...feed.places("signal")]).toEqual([6.25, 6.375]);
  });

  it("says which part of a window it has", () => {
    const feed = new TrendFeed(server.client, "a:b", QUIET);
    feed.start();
    server.grant([1], { columns: ["score"] });
    expect(feed.shortage(0)).toBe("");
    server.send(0, [[1], [2]]);
    expect([feed.shortage(0), feed.shortage(600)]).toEqual(["", ""]);
    const other = new TrendFeed(server.client, "a:c", QUIET);
    other.start();
    server.grant([1], { columns: ["score"] });
    server.send(96_000, [[1], [2], [3]]); // one a second
    expect(other.shortage(0)).toBe("last 3 of 96,003 rows");
    expect(other.shortage(600)).toBe("last 3 of 96,003 rows");
    expect(other.shortage(2)).toBe("");
  });

  it("numbers columns that have no names", () => {
    expect(columnNames({}, 1)).toEqual(["value"]);
    expect(columnNames({ columns: ["one"] }, 2)).toEqual(["channel 1", "channel 2"]);
  });
});
