// Which steps fail, from the failures that the workers report.

import type { StepFailure } from "../api/types";

export interface StepFailures {
  /** Steps that failed and have not worked since, the newest failure first. */
  readonly failing: readonly StepFailure[];
  /** Steps that have worked since they failed. */
  readonly recovered: readonly StepFailure[];
}

/** The newest failure of each step of each stream, newest first. */
export function stepFailures(failures: readonly StepFailure[]): StepFailures {
  const newest = new Map<string, StepFailure>();
  for (const failure of failures) {
    const step = JSON.stringify([failure.stream, failure.step]);
    if (failure.time_ns >= (newest.get(step)?.time_ns ?? -Infinity)) newest.set(step, failure);
  }
  const sorted = [...newest.values()].sort((one, other) => other.time_ns - one.time_ns);
  return {
    failing: sorted.filter(({ recovered_ns }) => recovered_ns === null),
    recovered: sorted.filter(({ recovered_ns }) => recovered_ns !== null),
  };
}
