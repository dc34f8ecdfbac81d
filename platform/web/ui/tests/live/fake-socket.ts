// A server and a clock for the live client, controlled by the test.

import type { LiveEnvironment, Socket } from "../../src/live/live";

export class FakeSocket implements Socket {
  binaryType = "";
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  closed = false;
  readonly sent: Record<string, unknown>[] = [];

  constructor(readonly url: string) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }

  close(): void {
    this.closed = true;
  }

  open(): void {
    this.onopen?.({} as never);
  }

  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  deliver(bytes: ArrayBuffer): void {
    this.onmessage?.({ data: bytes });
  }

  break(): void {
    this.onclose?.({} as never);
  }

  /** The newest subscription. */
  get asked(): { id: number; array: string; from: number | null } {
    return this.sent.filter(({ op }) => op === "subscribe").at(-1) as never;
  }
}

export class FakeEnvironment implements LiveEnvironment {
  readonly sockets: FakeSocket[] = [];
  time_ms = 0;
  chance = 1;
  #tasks: { task: () => void; due_ms: number }[] = [];

  openSocket(url: string): Socket {
    this.sockets.push(new FakeSocket(url));
    return this.socket;
  }

  now(): number {
    return this.time_ms;
  }

  later(task: () => void, delay_ms: number): () => void {
    const entry = { task, due_ms: this.time_ms + delay_ms };
    this.#tasks.push(entry);
    return () => (this.#tasks = this.#tasks.filter((each) => each !== entry));
  }

  random(): number {
    return this.chance;
  }

  get socket(): FakeSocket {
    return this.sockets.at(-1)!;
  }

  /** Milliseconds until the next task; null if there is none. */
  get due_in_ms(): number | null {
    return this.#tasks.length ? Math.min(...this.#tasks.map(({ due_ms }) => due_ms)) - this.time_ms : null;
  }

  pass(duration_ms: number): void {
    this.time_ms += duration_ms;
    const due = this.#tasks.filter(({ due_ms }) => due_ms <= this.time_ms);
    this.#tasks = this.#tasks.filter(({ due_ms }) => due_ms > this.time_ms);
    for (const { task } of due) task();
  }

  /** Lets the pending retry happen, and succeed. */
  reconnect(): void {
    this.pass(this.due_in_ms!);
    this.socket.open();
  }
}
