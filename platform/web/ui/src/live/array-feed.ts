// A live array, as far as spectra and trends have it in common: subscribe, stop, decode, report failures.

import { type Dtype, type Numbers, parseDtype } from "./dtype";
import { type Frame, frameValues } from "./frame";
import type { Layout, LiveClient, SubscribeOptions, Subscription } from "./live";

/** `waiting`: the array does not exist yet. `failed`: `detail` of the feed says why. */
export type FeedState = "connecting" | "waiting" | "live" | "failed";

export interface FeedObserver {
  /** The state or the layout changed. */
  changed(): void;
  /** Rows were added or dropped. */
  rowsChanged(): void;
}

/** Thrown by `takeLayout` if the rows cannot be drawn. */
export class LayoutUnsupported extends Error {
  constructor(message: string) {
    super(message);
    this.name = "LayoutUnsupported";
  }
}

export abstract class ArrayFeed {
  state: FeedState = "connecting";
  /** Why it failed; "" otherwise. */
  detail = "";
  protected readonly observer: FeedObserver;

  readonly #live: LiveClient;
  readonly #reference: string;
  #dtype: Dtype | null = null;
  #subscription: Subscription | null = null;

  constructor(live: LiveClient, reference: string, observer: FeedObserver) {
    this.#live = live;
    this.#reference = reference;
    this.observer = observer;
  }

  /** Rows that can be drawn. */
  abstract get row_count(): number;

  get paused(): boolean {
    return this.#subscription === null;
  }

  /** Subscribes; nothing if it is subscribed already. */
  start(): void {
    this.#subscription ??= this.#live.subscribe(this.#reference, this.prepareStart(), {
      began: (layout, fresh) => this.#begin(layout, fresh),
      rows: (frame) => {
        if (!this.#dtype) return;
        this.takeRows(frame, frameValues(frame, this.#dtype));
        this.observer.rowsChanged();
      },
      waiting: () => this.#enter("waiting"),
      failed: (title, detail) => this.#enter("failed", detail || title),
    });
  }

  /** Ends the subscription; what was received stays. */
  stop(): void {
    if (!this.#subscription) return;
    this.stopped(this.#subscription.next_row);
    this.#subscription.close();
    this.#subscription = null;
  }

  /** Prepares for rows from the start; gives which ones to ask for. */
  protected abstract prepareStart(): SubscribeOptions;
  /** `next_row` is the row after the last one that came; null if none did. */
  protected stopped(next_row: number | null): void {
    void next_row;
  }
  /** Drops all rows: those that follow belong to another array, or to another part of it. */
  protected abstract clear(): void;
  /** Prepares for rows of this layout. Throws LayoutUnsupported. */
  protected abstract takeLayout(layout: Layout): void;
  /** `values`: all rows of the frame, one after another. */
  protected abstract takeRows(frame: Frame, values: Numbers): void;

  #enter(state: FeedState, detail = ""): void {
    this.state = state;
    this.detail = detail;
    this.observer.changed();
  }

  #begin(layout: Layout, fresh: boolean): void {
    if (fresh) this.clear();
    this.#dtype = null;
    try {
      const dtype = parseDtype(layout.dtype);
      this.takeLayout(layout);
      this.#dtype = dtype;
    } catch (error) {
      this.#enter("failed", (error as Error).message);
      return;
    }
    this.#enter("live");
  }
}
