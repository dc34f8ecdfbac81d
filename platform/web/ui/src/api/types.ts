// The types of the HTTP API under the names that the dashboard uses. schema.ts is generated (make api-types).

import type * as schema from "./schema";

export type StreamSummary = schema.StreamInfo;
export type FailingStep = schema.FailingStep;
export type StreamAlarm = schema.StreamAlarm;
export type ArraySummary = schema.ArrayInfo;

export type Policy = schema.Policy;
export type PipelineStep = schema.Step;

/** Messages of the live feed. */
export type LiveRequest = schema.Subscribe | schema.Unsubscribe;
export type LiveMessage = schema.Subscribed | schema.Waiting | schema.Rejected;
export type Subscribed = schema.Subscribed;

export type Health = schema.Health;
export type HealthReason = schema.Reason;
/** The codes of reasons that this version knows. */
export type HealthCode = schema.HealthCondition["code"];
export type Problem = schema.Problem;

export type Status = schema.Status;
export type GatewayStatus = schema.GatewayStatus;
export type StepFailure = schema.StepFailure;

export type Installation = schema.Installation;
export type DeadLetterTotals = schema.DeadLetterTotals;
export type DeadLetterSummary = schema.DeadLetterInfo;
export type DeadLetter = schema.DeadLetterDetail;

export type AlarmSummary = schema.AlarmSummary;
export type Alarm = schema.AlarmInfo;
export type AlarmEntry = schema.HistoryEntry;
export type AlarmRows = schema.RowRange;
export type AlarmState = Alarm["state"];
/** The form of an action; `for_s` only to shelve. */
export type AlarmForm = Pick<schema.AlarmShelving, "by" | "text" | "for_s">;

type ActionOf<Path> = Path extends `/api/v1/alarms/{ref}/${infer Name}` ? Name : never;
export type AlarmAction = ActionOf<keyof schema.paths>;
