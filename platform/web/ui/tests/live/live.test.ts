import { beforeEach, describe, expect, it, vi } from "vitest";
import { type Frame, rowNumber } from "../../src/live/frame";
import { type Layout, LiveClient, type LiveListener, liveUrl } from "../../src/live/live";
import { FakeEnvironment } from "./fake-socket";
import { float32Bytes, frameBytes } from "./frame-bytes";

const SPECTRUM = { dtype: "<f4", row_shape: [], attrs: { unit: "g" } };
const SECOND_NS = 1_000_000_000n;

/** Remembers the calls. */
class Listener implements LiveListener {
  numbers: number[] = [];
  calls: string[] = [];
  layout: Layout | null = null;

  began(layout: Layout, fresh: boolean): void {
    this.layout = layout;
    this.calls.push(fresh ? "fresh" : "began");
    if (fresh) this.numbers = [];
  }

  rows(frame: Frame): void {
    for (let index = 0; index < frame.count; index++) this.numbers.push(rowNumber(frame, index));
  }

  waiting(): void {
    this.calls.push("waiting");
  }

  failed(title: string, detail: string): void {
    this.calls.push(`failed: ${title}: ${detail}`);
  }
}

let world: FakeEnvironment;
let client: LiveClient;
let listener: Listener;

beforeEach(() => {
  world = new FakeEnvironment();
  client = new LiveClient("ws://host/api/v1/live", world);
  listener = new Listener();
});

function connect(history_rows = 100): void {
  client.subscribe("voice:spectrum", { history_rows }, listener);
  client.start();
  world.socket.open();
}

/** The server grants the newest subscription, on the array with this `uid`. */
function grant(next: number, uid = "first"): void {
  world.socket.say({
    op: "subscribed",
    id: world.socket.asked.id,
    array: "voice:spectrum",
    uid,
    ...SPECTRUM,
    next,
  });
}

/** The server sends `count` rows from `first` on, `step` apart; the time of row n is n seconds. */
function send(first: number, count: number, options: { step?: number; length?: number } = {}): void {
  const { step = 1 } = options;
  const numbers = Array.from({ length: count }, (_, index) => first + index * step);
  world.socket.deliver(
    frameBytes({
      id: world.socket.asked.id,
      first_row: first,
      step,
      length: options.length ?? first + count * step,
      times_ns: numbers.map((number) => BigInt(number) * SECOND_NS),
      rows: float32Bytes(...numbers),
    }),
  );
}

function dropAndReconnect(): void {
  world.socket.break();
  world.reconnect();
}

describe("a subscription", () => {
  it("asks for as many rows back as its listener keeps", () => {
    connect(512);
    expect(world.socket.asked).toMatchObject({ op: "subscribe", array: "voice:spectrum", from: -512 });
  });

  it("asks for the next rows if the listener keeps none", () => {
    connect(0);
    expect(world.socket.asked.from).toBeNull();
  });

  it("starts at the requested row", () => {
    client.subscribe("voice:spectrum", { history_rows: 100, from: 30 }, listener);
    client.start();
    world.socket.open();
    expect(world.socket.asked.from).toBe(30);
  });

  it("passes on the layout and the rows", () => {
    connect();
    grant(10);
    send(10, 3);
    expect(listener.calls).toEqual(["began"]);
    expect(listener.layout).toEqual(SPECTRUM);
    expect(listener.numbers).toEqual([10, 11, 12]);
  });

  it("reports that it waits for an array, and that it fails", () => {
    connect();
    world.socket.say({ op: "waiting", id: world.socket.asked.id });
    world.socket.say({ op: "error", id: world.socket.asked.id, title: "No", detail: "gone" });
    expect(listener.calls).toEqual(["waiting", "failed: No: gone"]);
  });

  it("is ended at the server, and hears nothing more", () => {
    const subscription = client.subscribe("voice:spectrum", { history_rows: 5 }, listener);
    client.start();
    world.socket.open();
    grant(0);
    subscription.close();
    send(0, 2);
    expect(world.socket.sent.at(-1)).toEqual({ op: "unsubscribe", id: world.socket.asked.id });
    expect(listener.numbers).toEqual([]);
  });

  it("starts over if another array has the name", () => {
    connect();
    grant(0);
    send(0, 5);
    grant(0, "second");
    send(0, 2);
    expect(listener.calls).toEqual(["began", "fresh"]);
    expect(listener.numbers).toEqual([0, 1]);
  });

  it("shares one connection with others", () => {
    connect();
    client.subscribe("other:features", { history_rows: 5 }, new Listener());
    expect(world.sockets).toHaveLength(1);
    expect(world.socket.asked.array).toBe("other:features");
  });
});

describe("after the connection broke", () => {
  it("resumes after the last row received", () => {
    connect();
    grant(10);
    send(10, 3);
    dropAndReconnect();
    expect(world.socket.asked.from).toBe(13);
    grant(13);
    send(13, 2);
    expect(listener.numbers).toEqual([10, 11, 12, 13, 14]);
    expect(listener.calls).toEqual(["began", "began"]);
  });

  it("loses no row that came while no frame had", () => {
    connect(0);
    grant(40);
    dropAndReconnect();
    expect(world.socket.asked.from).toBe(40);
  });

  it("resumes after the last row if the server skipped rows", () => {
    connect();
    grant(0);
    send(0, 3, { step: 4, length: 50 });
    dropAndReconnect();
    expect(world.socket.asked.from).toBe(9);
  });

  it("passes on each row once if the server starts earlier", () => {
    connect();
    grant(0);
    send(0, 5);
    dropAndReconnect();
    grant(3);
    send(3, 1);
    send(4, 4);
    expect(listener.numbers).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it("skips repeated rows by their number if the server skips rows", () => {
    connect();
    grant(0);
    send(0, 6);
    dropAndReconnect();
    grant(2);
    send(2, 4, { step: 3 });
    expect(listener.numbers).toEqual([0, 1, 2, 3, 4, 5, 8, 11]);
  });

  it("asks for the newest rows if it missed more than its listener keeps", () => {
    connect(10);
    grant(0);
    send(0, 5);
    dropAndReconnect();
    grant(5);
    send(5, 2, { length: 1000 });
    expect(world.socket.asked.from).toBe(-10);
    grant(990);
    send(990, 10, { length: 1000 });
    expect(listener.numbers).toEqual([0, 1, 2, 3, 4, 990, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
  });

  it("asks for the newest rows if its row does not exist any more", () => {
    connect(10);
    grant(0);
    send(0, 5);
    dropAndReconnect();
    world.socket.say({ op: "error", id: world.socket.asked.id, title: "Gone", detail: "" });
    expect(world.socket.asked.from).toBe(-10);
    expect(listener.calls).toEqual(["began"]);
  });

  it("starts over at the end if another array has the name now", () => {
    connect(10);
    grant(0);
    send(0, 50);
    dropAndReconnect();
    expect(world.socket.asked.from).toBe(50);
    grant(50, "second");
    expect(world.socket.asked.from).toBe(-10);
    grant(0, "second");
    send(0, 3);
    expect(listener.calls).toEqual(["began", "fresh"]);
    expect(listener.numbers).toEqual([0, 1, 2]);
  });

  it("reconnects after malformed bytes", () => {
    vi.spyOn(console, "warn").mockImplementation(() => {});
    connect();
    grant(0);
    send(0, 2);
    const broken = world.socket;
    broken.deliver(new ArrayBuffer(5));
    expect(broken.closed).toBe(true);
    world.reconnect();
    expect(world.socket.asked.from).toBe(2);
  });
});

describe("however the connection breaks and the rows are cut", () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])("each row comes once and in order (run %i)", (seed) => {
    const random = pseudoRandom(seed);
    const total = 400;
    connect(total);
    let next = 0;
    grant(next);
    while (next < total) {
      if (random() < 0.15) {
        dropAndReconnect();
        // A server may resume before the requested row.
        const from = world.socket.asked.from!;
        next = Math.max(0, (from < 0 ? 0 : from) - Math.floor(random() * 4));
        grant(next);
      }
      const count = Math.min(total - next, 1 + Math.floor(random() * 9));
      send(next, count);
      next += count;
    }
    expect(listener.numbers).toEqual(Array.from({ length: total }, (_, number) => number));
  });
});

describe("reconnecting", () => {
  it("waits longer each time, and at most 15 s", () => {
    client.start();
    const waits_ms: number[] = [];
    for (let attempt = 0; attempt < 9; attempt++) {
      world.socket.break();
      waits_ms.push(world.due_in_ms!);
      world.pass(world.due_in_ms!);
    }
    expect(waits_ms).toEqual([250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
  });

  it("is spread over the second half of the wait", () => {
    world.chance = 0;
    client.start();
    world.socket.break();
    expect(world.due_in_ms).toBe(125);
  });

  it("begins with short waits again once the server has answered", () => {
    connect();
    world.socket.break();
    world.reconnect();
    world.socket.break();
    expect(world.due_in_ms).toBe(500);
    world.reconnect();
    grant(0);
    world.socket.break();
    expect(world.due_in_ms).toBe(250);
  });

  it("begins with short waits again after a connection that held", () => {
    client.start();
    world.socket.open();
    world.socket.break();
    world.reconnect();
    world.pass(60_000);
    world.socket.break();
    expect(world.due_in_ms).toBe(250);
  });

  it("happens at once on request", () => {
    client.start();
    world.socket.break();
    client.retryNow();
    expect(world.sockets).toHaveLength(2);
    expect(world.due_in_ms).toBeNull();
  });

  it("ends with stop", () => {
    client.start();
    world.socket.open();
    client.stop();
    expect(world.socket.closed).toBe(true);
    expect(world.due_in_ms).toBeNull();
    expect(client.state).toBe("idle");
  });

  it("tells its watchers each state", () => {
    const states: string[] = [];
    client.watch(() => states.push(client.state));
    client.start();
    world.socket.open();
    dropAndReconnect();
    expect(states).toEqual(["connecting", "open", "waiting", "connecting", "open"]);
  });
});

describe("the address of the live feed", () => {
  it.each([
    ["http://localhost:8080/?token=x#/stream/a", "ws://localhost:8080/api/v1/live"],
    ["https://wind.example/park/", "wss://wind.example/park/api/v1/live"],
  ])("next to %s is %s", (page, address) => {
    expect(liveUrl(page)).toBe(address);
  });
});

function pseudoRandom(seed: number): () => number {
  let state = seed * 2654435761;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
