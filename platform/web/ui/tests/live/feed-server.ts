// A live client whose server grants the feed and sends rows, as the test says.

import type { FeedObserver } from "../../src/live/array-feed";
import { LiveClient } from "../../src/live/live";
import { FakeEnvironment } from "./fake-socket";
import { float32Bytes, frameBytes } from "./frame-bytes";

export const QUIET: FeedObserver = { changed: () => {}, rowsChanged: () => {} };

export class FeedServer {
  readonly world = new FakeEnvironment();
  readonly client = new LiveClient("ws://host/", this.world);

  constructor() {
    this.client.start();
    this.world.socket.open();
  }

  /** The row that the last subscription asked for. */
  get asked_from(): number | null {
    return this.world.socket.asked.from;
  }

  grant(row_shape: number[], attrs: object, dtype = "<f4"): void {
    this.world.socket.say({
      op: "subscribed",
      id: this.world.socket.asked.id,
      array: "a:b",
      dtype,
      row_shape,
      attrs,
      next: 0,
    });
  }

  /** One row each second. */
  send(first_row: number, rows: number[][]): void {
    const times_ns = rows.map((_, index) => BigInt(first_row + index) * 1_000_000_000n);
    this.world.socket.deliver(
      frameBytes({ id: this.world.socket.asked.id, first_row, times_ns, rows: float32Bytes(...rows.flat()) }),
    );
  }
}
