// Throughput of the gateway: differences of its totals.

import type { GatewayStatus } from "../api/types";

export interface Throughput {
  readonly events_per_s: number;
  readonly bytes_per_s: number;
}

/** Samples kept for the small chart in the status strip. */
export const MAX_SAMPLES = 60;
/** Differences span so long: one burst per second must not flicker. */
const SPAN_S = 3;

interface Totals {
  time_s: number;
  events: number;
  bytes: number;
}

/** Memory: MAX_SAMPLES rates, and the totals of SPAN_S seconds. */
export class ThroughputMeter {
  readonly samples: Throughput[] = [];
  #totals: Totals[] = [];

  get latest(): Throughput | null {
    return this.samples.at(-1) ?? null;
  }

  add(status: Pick<GatewayStatus, "events_total" | "bytes_total" | "time_ns">): void {
    const now: Totals = {
      time_s: status.time_ns / 1e9,
      events: status.events_total,
      bytes: status.bytes_total,
    };
    const last = this.#totals.at(-1);
    if (last && now.time_s === last.time_s) return;
    // A restarted gateway counts from zero, and its clock may have been set back.
    if (last && (now.events < last.events || now.bytes < last.bytes || now.time_s < last.time_s))
      this.#totals = [];
    this.#totals.push(now);
    while (this.#totals.length > 2 && now.time_s - this.#totals[1]!.time_s >= SPAN_S) this.#totals.shift();
    const first = this.#totals[0]!;
    const elapsed_s = now.time_s - first.time_s;
    if (elapsed_s <= 0) return;
    this.samples.push({
      events_per_s: (now.events - first.events) / elapsed_s,
      bytes_per_s: (now.bytes - first.bytes) / elapsed_s,
    });
    if (this.samples.length > MAX_SAMPLES) this.samples.shift();
  }
}
