// The live feed: one WebSocket for all subscriptions. It reconnects by itself and resumes each subscription
// after the last row received, so that its listener receives each row once and in order.

import type { LiveMessage, LiveRequest, Subscribed } from "../api/types";
import { type Frame, parseFrame, rowNumber, withoutFirst } from "./frame";

/** The type, the shape and the attributes of the rows of an array. */
export type Layout = Readonly<Pick<Subscribed, "dtype" | "row_shape" | "attrs">>;
export type Attributes = Layout["attrs"];

export interface LiveListener {
  /** The subscription starts. `fresh`: earlier rows belong to another array of this name; drop them. */
  began(layout: Layout, fresh: boolean): void;
  /** Rows in order, each once. A jump of `first_row` means that the server skipped rows. */
  rows(frame: Frame): void;
  /** The array does not exist; the subscription starts when it does. */
  waiting(): void;
  failed(title: string, detail: string): void;
}

export interface SubscribeOptions {
  /** Rows that the listener keeps: so many come first, and older ones are skipped after a long disconnection. */
  history_rows: number;
  /** The first row, instead of `history_rows` before the end. */
  from?: number | null;
}

export interface Subscription {
  /** The row after the last one received; null before the first. */
  readonly next_row: number | null;
  close(): void;
}

/** `waiting`: disconnected, a new attempt is due at `retry_at_ms`. */
export type LiveState = "idle" | "connecting" | "open" | "waiting";

/** The part of WebSocket that is used. */
export interface Socket {
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: never) => void) | null;
  send(text: string): void;
  close(): void;
}

export interface LiveEnvironment {
  openSocket(url: string): Socket;
  /** Milliseconds of a monotonic clock. */
  now(): number;
  /** Runs `task` later; returns a function that cancels it. */
  later(task: () => void, delay_ms: number): () => void;
  /** Uniform in 0…1. */
  random(): number;
}

const BROWSER: LiveEnvironment = {
  openSocket: (url) => new WebSocket(url) as unknown as Socket,
  now: () => performance.now(),
  later: (task, delay_ms) => {
    const timer = setTimeout(task, delay_ms);
    return () => clearTimeout(timer);
  },
  random: () => Math.random(),
};

const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 15_000;
/** After a connection of at least this duration, retries start over with the shortest delay. */
const STEADY_MS = 10_000;

interface Feed {
  id: number;
  readonly array: string;
  readonly history_rows: number;
  readonly listener: LiveListener;
  next_row: number | null;
  /** Identifies the array: another one may have the same name later. Null before the first. */
  uid: string | null;
  /** The rows belong to a former array, and the listener does not know. */
  stale: boolean;
  /** Resubscribed, and no frame was received since. */
  resuming: boolean;
}

export class LiveClient {
  state: LiveState = "idle";
  retry_at_ms = 0;

  readonly #url: string;
  readonly #environment: LiveEnvironment;
  readonly #feeds = new Map<number, Feed>();
  readonly #watchers = new Set<() => void>();
  #socket: Socket | null = null;
  #last_id = 0;
  #attempt = 0;
  #opened_ms = 0;
  #cancelRetry: (() => void) | null = null;

  constructor(url: string, environment: LiveEnvironment = BROWSER) {
    this.#url = url;
    this.#environment = environment;
  }

  /** Opens the connection and keeps it open until `stop`. */
  start(): void {
    if (this.state === "idle") this.#connect();
  }

  stop(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    this.#dropSocket();
    this.#enter("idle");
  }

  /** Retries at once if a retry is due later: the network is back, or the page is visible again. */
  retryNow(): void {
    if (this.state !== "waiting") return;
    this.#cancelRetry?.();
    this.#connect();
  }

  /** Calls `watcher` at each change of `state`; returns a function that ends this. */
  watch(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  subscribe(array: string, options: SubscribeOptions, listener: LiveListener): Subscription {
    const feed: Feed = {
      id: 0,
      array,
      history_rows: options.history_rows,
      listener,
      next_row: options.from ?? null,
      uid: null,
      stale: false,
      resuming: false,
    };
    this.#register(feed);
    return {
      get next_row() {
        return feed.next_row;
      },
      close: () => {
        if (this.#feeds.delete(feed.id)) this.#send({ op: "unsubscribe", id: feed.id });
      },
    };
  }

  #enter(state: LiveState): void {
    if (this.state === state) return;
    this.state = state;
    for (const watcher of this.#watchers) watcher();
  }

  #connect(): void {
    this.#cancelRetry = null;
    const socket = this.#environment.openSocket(this.#url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      this.#opened_ms = this.#environment.now();
      this.#enter("open");
      for (const feed of this.#feeds.values()) this.#request(feed);
    };
    socket.onmessage = ({ data }) => {
      this.#attempt = 0;
      if (typeof data === "string") this.#onText(data);
      else this.#onBytes(data as ArrayBuffer);
    };
    socket.onclose = () => this.#onClose();
    this.#enter("connecting");
  }

  #dropSocket(): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #onClose(): void {
    this.#socket = null;
    if (this.state === "open" && this.#environment.now() - this.#opened_ms >= STEADY_MS) this.#attempt = 0;
    const longest_ms = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    // Spread over half the delay, so that browsers do not reconnect to a restarted server all at once.
    const delay_ms = longest_ms * (0.5 + this.#environment.random() / 2);
    this.retry_at_ms = this.#environment.now() + delay_ms;
    this.#cancelRetry = this.#environment.later(() => this.#connect(), delay_ms);
    this.#enter("waiting");
  }

  #send(message: LiveRequest): void {
    if (this.state === "open") this.#socket?.send(JSON.stringify(message));
  }

  /** Gives the feed a new ID: frames for the former ID are ignored. */
  #register(feed: Feed): void {
    this.#feeds.delete(feed.id);
    feed.id = ++this.#last_id;
    this.#feeds.set(feed.id, feed);
    this.#request(feed);
  }

  #request(feed: Feed): void {
    feed.resuming = feed.next_row !== null;
    const from = feed.next_row ?? (feed.history_rows > 0 ? -feed.history_rows : null);
    this.#send({ op: "subscribe", id: feed.id, array: feed.array, from });
  }

  /** Subscribes again, from the end of the array. */
  #restart(feed: Feed): void {
    this.#send({ op: "unsubscribe", id: feed.id });
    feed.next_row = null;
    this.#register(feed);
  }

  #onText(text: string): void {
    const message = JSON.parse(text) as LiveMessage;
    const feed = message.id === null ? undefined : this.#feeds.get(message.id);
    if (!feed) return;
    if (message.op === "subscribed") {
      const { uid, dtype, row_shape, attrs } = message;
      if (feed.uid !== null && feed.uid !== uid) {
        feed.stale = true;
        feed.next_row = null;
      }
      feed.uid = uid;
      if (feed.stale && feed.resuming) {
        // The requested row belongs to the former array.
        this.#restart(feed);
        return;
      }
      feed.next_row ??= message.next;
      const fresh = feed.stale;
      feed.stale = false;
      feed.listener.began({ dtype, row_shape, attrs }, fresh);
    } else if (message.op === "waiting") {
      feed.listener.waiting();
    } else if (message.op === "error") {
      if (feed.resuming) {
        // The requested row may be deleted; the newest rows are not.
        this.#restart(feed);
      } else {
        feed.listener.failed(message.title, message.detail);
      }
    }
  }

  #onBytes(buffer: ArrayBuffer): void {
    let frame: Frame;
    try {
      frame = parseFrame(buffer);
    } catch (error) {
      // After malformed bytes the rest of the connection is unusable: reconnect and resume each feed.
      console.warn(error);
      this.#dropSocket();
      this.#onClose();
      return;
    }
    const feed = this.#feeds.get(frame.id);
    if (!feed || frame.count === 0) return;
    const resumed = feed.resuming;
    feed.resuming = false;
    if (resumed && feed.history_rows > 0 && frame.length - frame.first_row > 2 * feed.history_rows) {
      this.#restart(feed);
      return;
    }
    if (feed.next_row !== null && frame.first_row < feed.next_row) {
      const had = Math.min(frame.count, Math.ceil((feed.next_row - frame.first_row) / frame.step));
      if (had === frame.count) return;
      frame = withoutFirst(frame, had);
    }
    feed.next_row = rowNumber(frame, frame.count - 1) + 1;
    feed.listener.rows(frame);
  }
}

/** The address of the live feed, next to the page. */
export function liveUrl(page: string): string {
  const url = new URL("api/v1/live", page);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = "";
  url.hash = "";
  return url.href;
}
