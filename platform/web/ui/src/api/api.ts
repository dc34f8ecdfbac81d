// The client of the HTTP API.

import { ApiError } from "./api-error";
import { type Page, readPage } from "./paging";
import type {
  Alarm,
  AlarmAction,
  AlarmForm,
  AlarmSummary,
  ArraySummary,
  DeadLetter,
  DeadLetterSummary,
  Health,
  Policy,
  Problem,
  Status,
  StreamSummary,
} from "./types";

/** A longer list of policies is cut. */
const MAX_POLICIES = 5000;
const PAGE_ENTRIES = 1000;

export class Api {
  /** Called at each 401. */
  onUnauthorized: () => void = () => {};
  /** The server's clock minus this machine's, by the last answer's Date header (to a second). */
  clock_offset_ms = 0;

  readonly #base: string;
  readonly #fetch: typeof fetch;

  /** `page`: the address of the page; the API is at `api/v1/` next to it. */
  constructor(page: string, fetcher: typeof fetch = (input, init) => fetch(input, init)) {
    this.#base = new URL("api/v1/", page).href.replace(/[?#].*$/, "");
    this.#fetch = fetcher;
  }

  /** Milliseconds since the epoch by the server's clock, to compare with arrival times. */
  now_ms(): number {
    return Date.now() + this.clock_offset_ms;
  }

  status(): Promise<Status> {
    return this.#get("status");
  }

  /** The streams after the reference `after`; `words`: those whose references contain each of them. */
  streams(after: string, limit: number, words = ""): Promise<Page<StreamSummary>> {
    const query = new URLSearchParams({ limit: String(limit) });
    if (after) query.set("after", after);
    if (words) query.set("q", words);
    return this.#page(`${this.#base}streams?${query}`);
  }

  /** The server answers 503 if the installation is unhealthy, which is not an error here. */
  async health(): Promise<Health> {
    const response = await this.#ask(`${this.#base}health`, "GET", undefined, isHealth);
    return (await response.json()) as Health;
  }

  stream(reference: string): Promise<StreamSummary> {
    return this.#get(`streams/${encodeURIComponent(reference)}`);
  }

  array(reference: string): Promise<ArraySummary> {
    return this.#get(`arrays/${encodeURIComponent(reference)}`);
  }

  /** All of them, up to MAX_POLICIES. */
  async policies(): Promise<Policy[]> {
    const policies: Policy[] = [];
    let address: string | null = `${this.#base}policies?limit=${PAGE_ENTRIES}`;
    while (address !== null && policies.length < MAX_POLICIES) {
      const page: Page<Policy> = await this.#page(address);
      policies.push(...page.entries);
      address = page.next;
    }
    return policies.slice(0, MAX_POLICIES);
  }

  deadLetters(limit: number): Promise<DeadLetterSummary[]> {
    return this.#get(`dead-letters?limit=${limit}`);
  }

  deadLetter(id: number): Promise<DeadLetter> {
    return this.#get(`dead-letters/${id}`);
  }

  /** Sends a dead letter to the gateway again; fails if the policies still reject it. */
  async replayDeadLetter(id: number): Promise<void> {
    await this.#ask(`${this.#base}dead-letters/${id}/replay`, "POST");
  }

  async dropDeadLetter(id: number): Promise<void> {
    await this.#ask(`${this.#base}dead-letters/${id}`, "DELETE");
  }

  /** Newest change first. */
  alarms(state: "open" | "", limit: number, stream = ""): Promise<AlarmSummary[]> {
    const of_stream = stream ? `&stream=${encodeURIComponent(stream)}` : "";
    return this.#get(`alarms?state=${state}&limit=${limit}${of_stream}`);
  }

  alarm(reference: string): Promise<Alarm> {
    return this.#get(`alarms/${encodeURIComponent(reference)}`);
  }

  async actOnAlarm(
    reference: string,
    action: AlarmAction,
    form: AlarmForm,
  ): Promise<Alarm> {
    const address = `${this.#base}alarms/${encodeURIComponent(reference)}/${action}`;
    return (await (await this.#ask(address, "POST", form)).json()) as Alarm;
  }

  /** Rows of an array of two dimensions; null for NaN and infinity. */
  rows(reference: string, first: number, stop: number): Promise<(number | null)[][]> {
    const array = encodeURIComponent(reference);
    return this.#get(`arrays/${array}/data?start=${first}&stop=${stop}&format=json`);
  }

  /** The address of a stream's bytes. */
  streamDataUrl(reference: string): string {
    return `${this.#base}streams/${encodeURIComponent(reference)}/data`;
  }

  /** The address of an array as a .npy file. */
  arrayFileUrl(reference: string): string {
    return `${this.#base}arrays/${encodeURIComponent(reference)}/data?format=npy`;
  }

  async #get<Answer>(path: string): Promise<Answer> {
    return (await (await this.#ask(this.#base + path)).json()) as Answer;
  }

  async #page<Entry>(address: string): Promise<Page<Entry>> {
    return readPage(await this.#ask(address), address);
  }

  async #ask(
    address: string,
    method = "GET",
    body?: object,
    isAnswer?: (response: Response) => boolean,
  ): Promise<Response> {
    let response: Response;
    try {
      response = await this.#fetch(address, {
        method,
        headers: { Accept: "application/json", ...(body && { "Content-Type": "application/json" }) },
        ...(body && { body: JSON.stringify(body) }),
        credentials: "same-origin",
      });
    } catch {
      throw new ApiError(0, "No answer", "The server cannot be reached. The dashboard tries again.");
    }
    const served_ms = Date.parse(response.headers.get("Date") ?? "");
    // The header has whole seconds, rounded down: half a second more is its mean.
    if (!Number.isNaN(served_ms)) this.clock_offset_ms = steadyOffset(served_ms + 500 - Date.now());
    if (response.ok || isAnswer?.(response)) return response;
    if (response.status === 401) this.onUnauthorized();
    const problem = (await response.json().catch(() => ({}))) as Partial<Problem>;
    throw new ApiError(response.status, problem.title ?? `Status ${response.status}`, problem.detail ?? "");
  }
}

/** A 503 of the health route itself; a proxy would answer with a problem document, or a page. */
function isHealth(response: Response): boolean {
  const type = response.headers.get("Content-Type") ?? "";
  return response.status === 503 && type.startsWith("application/json");
}

/** Clocks that agree within two seconds are taken as equal: the header has whole seconds. */
function steadyOffset(offset_ms: number): number {
  return Math.abs(offset_ms) < 2000 ? 0 : offset_ms;
}
