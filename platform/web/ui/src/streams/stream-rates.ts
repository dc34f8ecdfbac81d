// Events and bytes per second of each stream: differences of the totals of two polls.

import type { StreamSummary } from "../api/types";

export interface Rate {
  readonly events_per_s: number;
  readonly bytes_per_s: number;
}

interface Reading {
  events: number;
  size: number;
  rate: Rate;
  polled_ms: number;
}

/** Time constant of the average: chunks arrive in bursts, and the rate must not flicker. */
const SMOOTHING_S = 4;
const STILL: Rate = { events_per_s: 0, bytes_per_s: 0 };

/** A stream that was not read for so long has no rate. */
const FORGET_MS = 30_000;

/** Memory: the streams that were read within FORGET_MS. */
export class StreamRates {
  #read = new Map<string, Reading>();

  /** Adds the totals of streams, as read at `now_ms`. */
  update(streams: readonly StreamSummary[], now_ms: number): void {
    for (const [reference, { polled_ms }] of this.#read) {
      if (now_ms - polled_ms > FORGET_MS) this.#read.delete(reference);
    }
    for (const { reference, events, size } of streams) {
      const before = this.#read.get(reference);
      const elapsed_s = before ? (now_ms - before.polled_ms) / 1000 : 0;
      let rate = STILL;
      // A stream whose totals fell was cut back or created again: its rate is unknown.
      if (before && elapsed_s > 0 && events >= before.events && size >= before.size) {
        const share = 1 - Math.exp(-elapsed_s / SMOOTHING_S);
        rate = {
          events_per_s: mix(before.rate.events_per_s, (events - before.events) / elapsed_s, share),
          bytes_per_s: mix(before.rate.bytes_per_s, (size - before.size) / elapsed_s, share),
        };
      }
      this.#read.set(reference, { events, size, rate, polled_ms: now_ms });
    }
  }

  of(reference: string): Rate {
    return this.#read.get(reference)?.rate ?? STILL;
  }
}

function mix(before: number, now: number, share: number): number {
  const mixed = before === 0 ? now : before + (now - before) * share;
  return mixed < 1e-3 ? 0 : mixed;
}
