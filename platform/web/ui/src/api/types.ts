// The answers of the HTTP API that the dashboard reads.

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
  failing: FailingStep[];
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

/** An error (RFC 9457). */
export interface Problem {
  title: string;
  detail: string;
}
