// The worker remembers its newest failures; what a reader wants to know is which steps fail.

import type { StepFailure } from "./api";

/** A step that failed so recently counts as failing. */
export const RECENT_MS = 10 * 60_000;

export interface FailingStep extends StepFailure {
  readonly recent: boolean;
}

/** The newest failure of each step of each stream, newest first. */
export function failingSteps(failures: readonly StepFailure[], now_ms: number): FailingStep[] {
  const newest = new Map<string, StepFailure>();
  for (const failure of failures) {
    const step = JSON.stringify([failure.stream, failure.step]);
    if (failure.time_ns >= (newest.get(step)?.time_ns ?? -Infinity)) newest.set(step, failure);
  }
  return [...newest.values()]
    .sort((one, other) => other.time_ns - one.time_ns)
    .map((failure) => ({ ...failure, recent: now_ms - failure.time_ns / 1e6 < RECENT_MS }));
}
