// The streams as the dashboard lists them: what is in view is polled, with the rates of each.

import type { ReactiveControllerHost } from "lit";
import { Poller } from "../api/poller";
import type { StreamSummary } from "../api/types";
import { parseTime } from "../display/format";
import { firstToShow } from "../charts/outputs";
import { api } from "../services";
import { type Range, StreamListing } from "./stream-listing";
import { StreamRates } from "./stream-rates";

const INTERVAL_MS = 2000;
/** The next page is read when so few entries follow those in view. */
const ENTRIES_AHEAD = 40;
/** A stream that received data so recently is one to show first. */
const RECENT_MS = 10_000;

export class StreamDirectory {
  readonly rates = new StreamRates();
  /** The words that the server filters by. */
  filter = "";

  readonly #host: ReactiveControllerHost;
  readonly #listing = new StreamListing((after, limit, words) => api.streams(after, limit, words));
  readonly #poller: Poller<readonly StreamSummary[]>;
  /** The entries in view. */
  #range: Range = { first: 0, last: 0 };

  /** Reads while `host` is connected; calls `onRead` after each time. */
  constructor(host: ReactiveControllerHost, onRead: () => void) {
    this.#host = host;
    this.#poller = new Poller<readonly StreamSummary[]>(host, {
      interval_ms: INTERVAL_MS,
      read: () => this.#listing.refresh(this.#range),
      onValue: (streams) => {
        this.rates.update(streams, performance.now());
        onRead();
      },
    });
  }

  /** The entries that were read; null before. */
  get entries(): readonly StreamSummary[] | null {
    return this.#listing.entries;
  }

  /** The number of streams that match the filter, read or not. */
  get matching(): number {
    return this.#listing.matching;
  }

  /** The installation has no streams. */
  get empty(): boolean {
    return this.entries?.length === 0 && !this.filter;
  }

  /** Why the last reading failed; null if it did not. */
  get error(): Error | null {
    return this.#poller.error;
  }

  /** Keeps the entries of `range` up to date, and reads further ones before they come into view. */
  view(range: Range): void {
    this.#range = range;
    if (range.last + ENTRIES_AHEAD < (this.entries?.length ?? 0)) return;
    void this.#listing.readMore().then(
      () => this.#host.requestUpdate(),
      () => {}, // the next poll reports the error
    );
  }

  search(words: string): void {
    this.filter = words;
    if (!this.#listing.search(words)) return;
    this.#range = { first: 0, last: 0 };
    this.#poller.again();
    this.#host.requestUpdate();
  }

  /** The stream to show first: one that receives data, if there is one, and has many outputs. Null if unknown. */
  get first(): StreamSummary | null {
    if (!this.entries?.length || this.filter) return null;
    const now_ms = api.now_ms();
    return firstToShow(this.entries, (stream) => now_ms - (parseTime(stream.last_arrival) ?? 0) < RECENT_MS);
  }
}
