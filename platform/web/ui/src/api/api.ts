// The HTTP API, typed: what the dashboard reads of it.

export interface StreamSummary {
  reference: string;
  start: number;
  size: number;
  chunks: number;
  events: number;
  first_arrival: string | null;
  last_arrival: string | null;
  tag: string;
  policy: string | null;
  arrays: string[];
  /** How long ago its work was made durable; null, or absent, if no worker says it. */
  checkpoint_age_s?: number | null;
  /** Chunks that wait. */
  lag_chunks?: number | null;
  /** Why it is behind; null while it is up to date. `step` is "" if it is none of the pipeline's. */
  behind?: { step: string; reason: string } | null;
  /** Steps that failed and have not worked since. */
  failing?: FailingStep[];
  /** The worst open alarm; null while none is open. */
  alarm?: StreamAlarm | null;
}

export interface FailingStep {
  step: string;
  message: string;
  time_ns: number;
  times: number;
}

export interface StreamAlarm {
  reference: string;
  /** 1 warning, 2 danger. */
  grade: number;
  state: AlarmState;
  /** How many alarms of the stream are open. */
  open: number;
}

/** A part of the list of streams. */
export interface StreamPage {
  entries: StreamSummary[];
  /** Whether others follow. */
  more: boolean;
  /** How many streams there are on all pages; null if the server does not say it. */
  matching: number | null;
}

export interface HealthReason {
  tier: string;
  code: string;
  detail: string;
}

/** Whether the platform is well; if not, why. */
export interface Health {
  status: "ok" | "unhealthy";
  reasons?: HealthReason[];
}

export interface ArraySummary {
  reference: string;
  dtype: string | unknown[];
  shape: number[];
  start: number;
  attrs: Record<string, unknown>;
  stream: string;
  uid?: string;
}

export interface PipelineStep {
  operation: string;
  name?: string;
  input?: string | null;
  keep?: boolean;
  [parameter: string]: unknown;
}

export interface Policy {
  reference: string;
  title?: string;
  tags: string[];
  format: string;
  field?: string;
  limits?: Record<string, number>;
  partitions?: number;
  pipeline: PipelineStep[];
}

export interface GatewayStatus {
  events_total: number;
  bytes_total: number;
  chunks_total: number;
  refused_total: number;
  connections: number;
  pending_bytes: number;
  time_ns: number;
}

export interface StepFailure {
  stream: string;
  step: string;
  message: string;
  time_ns: number;
  times?: number;
  /** When the step worked again; null, or absent, while it has not. */
  recovered_ns?: number | null;
}

export interface WorkerStatus {
  events_total: number;
  bytes_total: number;
  chunks_total: number;
  lag_messages: number;
  streams: number;
  failures: StepFailure[];
  time_ns: number;
}

/** What is kept of refused input, and how many letters had to leave for newer ones. */
export interface DeadLetterTotals {
  count: number;
  bytes: number;
  max_bytes: number;
  evicted: number;
}

/** Which installation answers: its home on the server, and where its gateways listen, as HOST:PORT. */
export interface Installation {
  home: string;
  forward: string[];
}

export interface Status {
  installation: Installation;
  gateway: GatewayStatus | null;
  worker: WorkerStatus | null;
  dead_letters: DeadLetterTotals;
}

export interface DeadLetterSummary {
  id: number;
  code: string;
  reason: string;
  tag: string;
  sender: string;
  policy: string | null;
  size: number;
  time_ns: number;
  last_time_ns: number;
  times: number;
  /** Whether it can be sent again. */
  replayable: boolean;
}

export interface DeadLetter extends DeadLetterSummary {
  /** Such as the traceback of a step that failed. */
  detail: string;
  /** What its first bytes say, a line for each event. */
  decoded: string[];
  /** Why it cannot be sent again. */
  obstacle: string | null;
}

export type AlarmState = "raised" | "acknowledged" | "shelved" | "cleared";

/** What was done to an alarm; `time_ns` is the event time where rows have done it. */
export interface AlarmEntry {
  number: number;
  at_ns: number;
  by: string;
  action: string;
  text: string;
  time_ns: number | null;
  grade: number | null;
  value: number | null;
}

export interface AlarmSummary {
  reference: string;
  state: AlarmState;
  stream: string;
  policy: string;
  name: string;
  output: string;
  column: string;
  row: number;
  raised_ns: number;
  changed_ns: number;
  /** 0 healthy, 1 warning, 2 danger. */
  grade: number;
  worst: number;
  value: number | null;
  /** The worst value up to the last change that rows have made, and its event time. */
  peak: number | null;
  peak_ns: number | null;
  warning: number | null;
  danger: number | null;
  leading: string | null;
  rul_s: number | null;
  acknowledged_by: string | null;
  shelved_until_ns: number | null;
  entries: number;
  last: AlarmEntry;
  revision: number;
}

export interface AlarmContribution {
  column: string;
  value: number;
  usual: number;
  spread: number;
  deviation: number;
}

export interface AlarmRows {
  array: string;
  first: number;
  count: number;
}

export interface Alarm extends Omit<AlarmSummary, "entries" | "last"> {
  /** The uid of the data array that was judged. */
  array: string;
  contributions: AlarmContribution[];
  evidence: AlarmRows[];
  history: AlarmEntry[];
}

export type AlarmAction = "acknowledge" | "comment" | "shelve" | "unshelve" | "clear";

/** An answer that is no success (RFC 9457). `status` is 0 where there was no answer. */
export class ApiError extends Error {
  readonly status: number;
  readonly title: string;

  constructor(status: number, title: string, detail: string) {
    super(detail || title);
    this.name = "ApiError";
    this.status = status;
    this.title = title;
  }
}

/** Policies that the dashboard takes in; a longer list is cut. */
export const MAX_LISTED = 5000;
const PAGE_ENTRIES = 1000;

export class Api {
  /** Called at each answer 401. */
  onUnauthorized: () => void = () => {};
  /** The server's clock minus this machine's, by the last answer's Date header (to a second). */
  clock_offset_ms = 0;

  readonly #base: string;
  readonly #fetch: typeof fetch;

  /** `page`: the address of the page, which the API lies beside. */
  constructor(page: string, fetcher: typeof fetch = (input, init) => fetch(input, init)) {
    this.#base = new URL("api/v1/", page).href.replace(/[?#].*$/, "");
    this.#fetch = fetcher;
  }

  /** Milliseconds since the epoch by the server's clock: what arrival times are compared with. */
  now_ms(): number {
    return Date.now() + this.clock_offset_ms;
  }

  status(): Promise<Status> {
    return this.#get("status");
  }

  /** The streams after the reference `after`; `words`: those whose references contain each of them. */
  async streams(after: string, limit: number, words = ""): Promise<StreamPage> {
    const query = new URLSearchParams({ limit: String(limit) });
    if (after) query.set("after", after);
    if (words) query.set("q", words);
    const response = await this.#ask(`${this.#base}streams?${query}`);
    const matching = response.headers.get("Windvane-Matching");
    return {
      entries: (await response.json()) as StreamSummary[],
      more: nextPage(response.headers.get("Link")) !== null,
      matching: matching === null ? null : Number(matching),
    };
  }

  /** Answered with 503 if the platform is not well, which is an answer like any other. */
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

  policies(): Promise<Policy[]> {
    return this.#list("policies");
  }

  deadLetters(limit: number): Promise<DeadLetterSummary[]> {
    return this.#get(`dead-letters?limit=${limit}`);
  }

  deadLetter(id: number): Promise<DeadLetter> {
    return this.#get(`dead-letters/${id}`);
  }

  /** Sends a refused chunk through the policies as they are now; fails where it is refused again. */
  async replayDeadLetter(id: number): Promise<void> {
    await this.#ask(`${this.#base}dead-letters/${id}/replay`, "POST");
  }

  async dropDeadLetter(id: number): Promise<void> {
    await this.#ask(`${this.#base}dead-letters/${id}`, "DELETE");
  }

  /** Those that were changed last first. */
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
    said: { by: string; text: string; for_s?: number },
  ): Promise<Alarm> {
    const address = `${this.#base}alarms/${encodeURIComponent(reference)}/${action}`;
    return (await (await this.#ask(address, "POST", said)).json()) as Alarm;
  }

  /** Rows of an array of two dimensions as numbers; null stands for what is none. */
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

  /** All pages of a list, up to MAX_LISTED entries. */
  async #list<Entry>(path: string): Promise<Entry[]> {
    const entries: Entry[] = [];
    let address: string | null = `${this.#base}${path}?limit=${PAGE_ENTRIES}`;
    while (address !== null && entries.length < MAX_LISTED) {
      const response: Response = await this.#ask(address);
      entries.push(...((await response.json()) as Entry[]));
      const next = nextPage(response.headers.get("Link"));
      address = next === null ? null : new URL(next, address).href;
    }
    return entries.slice(0, MAX_LISTED);
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
      throw new ApiError(0, "No answer", "The server cannot be reached.");
    }
    const served_ms = Date.parse(response.headers.get("Date") ?? "");
    // The header names the second that has begun, so half a second is the fairest reading of it.
    if (!Number.isNaN(served_ms)) this.clock_offset_ms = steadyOffset(served_ms + 500 - Date.now());
    if (response.ok || isAnswer?.(response)) return response;
    if (response.status === 401) this.onUnauthorized();
    const problem = (await response.json().catch(() => ({}))) as { title?: string; detail?: string };
    throw new ApiError(response.status, problem.title ?? `Status ${response.status}`, problem.detail ?? "");
  }
}

/** A 503 of the health route itself; one of something between is a problem document, or a page. */
function isHealth(response: Response): boolean {
  const type = response.headers.get("Content-Type") ?? "";
  return response.status === 503 && type.startsWith("application/json");
}

/** Clocks that agree within two seconds are taken as equal: the header is no finer than that. */
function steadyOffset(offset_ms: number): number {
  return Math.abs(offset_ms) < 2000 ? 0 : offset_ms;
}

/** The address of `rel="next"` in a Link header (RFC 8288); null where there is none. */
export function nextPage(header: string | null): string | null {
  for (const part of header?.split(/,(?=\s*<)/) ?? []) {
    const match = /^\s*<([^>]*)>\s*;.*\brel="?next"?/.exec(part);
    if (match) return match[1]!;
  }
  return null;
}
