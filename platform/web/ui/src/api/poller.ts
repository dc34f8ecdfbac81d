// Polling: reads from the API at intervals while its element is connected and the page is visible.

import { type ReactiveController, type ReactiveControllerHost, type TemplateResult, html } from "lit";

/** Slow answers slow the polling down: at most this share of the time is spent waiting for answers. */
const BUSIEST_SHARE = 0.2;

export class Poller<Value> implements ReactiveController {
  /** What was read last; null before. It stays if a later reading fails. */
  value: Value | null = null;
  /** Why the last reading failed; null if it did not. */
  error: Error | null = null;

  readonly #host: ReactiveControllerHost;
  readonly #read: () => Promise<Value>;
  readonly #interval_ms: number;
  readonly #onValue: (value: Value) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Answers of earlier rounds are ignored. */
  #round = 0;
  #connected = false;

  constructor(
    host: ReactiveControllerHost,
    options: { interval_ms: number; read: () => Promise<Value>; onValue?: (value: Value) => void },
  ) {
    this.#host = host;
    this.#interval_ms = options.interval_ms;
    this.#read = options.read;
    this.#onValue = options.onValue ?? (() => {});
    host.addController(this);
  }

  hostConnected(): void {
    this.#connected = true;
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.again();
  }

  hostDisconnected(): void {
    this.#connected = false;
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#cancel();
  }

  /** Forgets the value and reads at once: the question has changed. */
  reset(): void {
    this.value = null;
    this.error = null;
    this.again();
  }

  /** Reads at once. */
  again(): void {
    this.#cancel();
    if (this.#connected && !document.hidden) void this.#poll(this.#round);
  }

  /** The value as `shown`; until it is known, that it is being read or why it cannot be read. */
  render(shown: (value: Value) => TemplateResult): TemplateResult {
    if (this.value !== null) return shown(this.value);
    return html`<p class="panel note" role="status">${this.error?.message ?? "Loading\u2026"}</p>`;
  }

  #onVisibility = (): void => {
    if (document.hidden) this.#cancel();
    else this.again();
  };

  #cancel(): void {
    clearTimeout(this.#timer);
    this.#round += 1;
  }

  async #poll(round: number): Promise<void> {
    const begun_ms = performance.now();
    let value: Value | null = null;
    let error: Error | null = null;
    try {
      value = await this.#read();
    } catch (reason) {
      error = reason instanceof Error ? reason : new Error(String(reason));
    }
    if (round !== this.#round) return;
    if (value !== null) {
      this.value = value;
      this.#onValue(value);
    }
    this.error = error;
    this.#host.requestUpdate();
    const taken_ms = performance.now() - begun_ms;
    const pause_ms = Math.max(this.#interval_ms - taken_ms, taken_ms * (1 / BUSIEST_SHARE - 1));
    this.#timer = setTimeout(() => void this.#poll(round), pause_ms);
  }
}
