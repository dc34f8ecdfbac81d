// Events and bytes per second of each stream, from the totals that the API gives at each poll.

import type { StreamSummary } from "../api/api";

export interface Rate {
  readonly events_per_s: number;
  readonly bytes_per_s: number;
}

interface Seen {
  events: number;
  size: number;
  rate: Rate;
  polled_ms: number;
}

/** Time constant of the average: chunks come in bursts, a rate should not flicker. */
const SMOOTHING_S = 4;
const STILL: Rate = { events_per_s: 0, bytes_per_s: 0 };

/** What was not read again for so long has no rate. */
const FORGET_MS = 30_000;

/** Remembers the streams that were read within the last half a minute. */
export class StreamRates {
  #seen = new Map<string, Seen>();

  /** Takes up the totals of some streams as read at `now_ms`. */
  update(streams: readonly StreamSummary[], now_ms: number): void {
    for (const [reference, { polled_ms }] of this.#seen) {
      if (now_ms - polled_ms > FORGET_MS) this.#seen.delete(reference);
    }
    for (const { reference, events, size } of streams) {
      const before = this.#seen.get(reference);
      const elapsed_s = before ? (now_ms - before.polled_ms) / 1000 : 0;
      let rate = STILL;
      // Totals that fell belong to a stream that was cut back or made anew: no rate, rather than a wrong one.
      if (before && elapsed_s > 0 && events >= before.events && size >= before.size) {
        const share = 1 - Math.exp(-elapsed_s / SMOOTHING_S);
        rate = {
          events_per_s: mix(before.rate.events_per_s, (events - before.events) / elapsed_s, share),
          bytes_per_s: mix(before.rate.bytes_per_s, (size - before.size) / elapsed_s, share),
        };
      }
      this.#seen.set(reference, { events, size, rate, polled_ms: now_ms });
    }
  }

  of(reference: string): Rate {
    return this.#seen.get(reference)?.rate ?? STILL;
  }
}

function mix(before: number, now: number, share: number): number {
  const mixed = before === 0 ? now : before + (now - before) * share;
  return mixed < 1e-3 ? 0 : mixed;
}
