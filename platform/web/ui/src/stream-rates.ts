// Events and bytes per second of each stream, from the totals that the API gives at each poll.

import type { StreamSummary } from "./api";

export interface Rate {
  readonly events_per_s: number;
  readonly bytes_per_s: number;
}

interface Seen {
  events: number;
  size: number;
  rate: Rate;
}

/** Time constant of the average: chunks come in bursts, a rate should not flicker. */
const SMOOTHING_S = 4;
const STILL: Rate = { events_per_s: 0, bytes_per_s: 0 };

/** Remembers the streams of the last poll, no others. */
export class StreamRates {
  #seen = new Map<string, Seen>();
  #polled_ms: number | null = null;

  /** Takes up the totals as read at `now_ms`. */
  update(streams: readonly StreamSummary[], now_ms: number): void {
    const elapsed_s = this.#polled_ms === null ? 0 : (now_ms - this.#polled_ms) / 1000;
    this.#polled_ms = now_ms;
    const seen = new Map<string, Seen>();
    for (const { reference, events, size } of streams) {
      const before = this.#seen.get(reference);
      let rate = STILL;
      // Totals that fell belong to a stream that was cut back or made anew: no rate, rather than a wrong one.
      if (before && elapsed_s > 0 && events >= before.events && size >= before.size) {
        const share = 1 - Math.exp(-elapsed_s / SMOOTHING_S);
        rate = {
          events_per_s: mix(before.rate.events_per_s, (events - before.events) / elapsed_s, share),
          bytes_per_s: mix(before.rate.bytes_per_s, (size - before.size) / elapsed_s, share),
        };
      }
      seen.set(reference, { events, size, rate });
    }
    this.#seen = seen;
  }

  of(reference: string): Rate {
    return this.#seen.get(reference)?.rate ?? STILL;
  }
}

function mix(before: number, now: number, share: number): number {
  const mixed = before === 0 ? now : before + (now - before) * share;
  return mixed < 1e-3 ? 0 : mixed;
}
