// The marks of states: a shape and a colour each, always with a word. Healthy is grey.

import { type TemplateResult, css, html, svg } from "lit";
import type { AlarmState, FailingStep, StreamAlarm } from "../api/types";
import { capitalized } from "../display/format";
import { delayInShort } from "./delay";

export type Mark = "danger" | "danger-seen" | "warning" | "warning-seen" | "returned" | "shelved" | "fault" | "ok";

const SHAPES: Readonly<Record<Mark, TemplateResult>> = {
  danger: svg`<path d="M6 .4 11.6 6 6 11.6 .4 6Z" fill="currentColor"/>`,
  "danger-seen": svg`<path d="M6 1.2 10.8 6 6 10.8 1.2 6Z" fill="none" stroke="currentColor" stroke-width="1.6"/>`,
  warning: svg`<path d="M6 .8 11.7 11H.3Z" fill="currentColor"/>`,
  "warning-seen": svg`<path d="M6 2 10.6 10.2H1.4Z" fill="none" stroke="currentColor" stroke-width="1.6"
    stroke-linejoin="round"/>`,
  returned: svg`<path d="M6 2 10.6 10.2H1.4Z" fill="none" stroke="currentColor" stroke-width="1.4"
    stroke-dasharray="2 1.6"/>`,
  shelved: svg`<path d="M2 2h8v8H2ZM4.6 4v4M7.4 4v4" fill="none" stroke="currentColor" stroke-width="1.4"/>`,
  fault: svg`<path d="M10.6 6A4.6 4.6 0 1 1 6 1.4 4.6 4.6 0 0 1 10.6 6ZM2.6 9.4 9.4 2.6" fill="none"
    stroke="currentColor" stroke-width="1.6"/>`,
  ok: svg`<circle cx="6" cy="6" r="3" fill="none" stroke="currentColor" stroke-width="1.3"/>`,
};

/** `words` is the accessible name; a mark next to its word needs none. */
export function markPicture(mark: Mark, words = ""): TemplateResult {
  return words
    ? html`<svg class="mark ${mark}" viewBox="0 0 12 12" role="img" aria-label=${words}>${SHAPES[mark]}</svg>`
    : html`<svg class="mark ${mark}" viewBox="0 0 12 12" aria-hidden="true">${SHAPES[mark]}</svg>`;
}

export const markStyles = css`
  .mark {
    flex: none;
    width: 12px;
    height: 12px;
    color: var(--ok);
  }
  .mark.danger,
  .mark.danger-seen {
    color: var(--bad);
  }
  .mark.warning,
  .mark.warning-seen {
    color: var(--warn-fill);
  }
  .mark.fault {
    color: var(--info);
  }
`;

interface Graded {
  /** 0 healthy, 1 warning, 2 danger. */
  readonly grade: number;
  readonly state: AlarmState;
}

const GRADES = ["healthy", "warning", "danger"] as const;

export function gradeName(grade: number): (typeof GRADES)[number] {
  return GRADES[grade] ?? "healthy";
}

/** What an open alarm is called and marked by: at least a warning. */
function openName(grade: number): "warning" | "danger" {
  return grade >= 2 ? "danger" : "warning";
}

/** An acknowledged alarm has the same shape, outlined. */
export function markOfAlarm({ grade, state }: Graded): Mark {
  if (state === "cleared") return "returned";
  if (state === "shelved") return "shelved";
  const name = openName(grade);
  return state === "raised" ? name : `${name}-seen`;
}

/** `Danger, not acknowledged`. */
export function alarmInWords({ grade, state }: Graded): string {
  const name = capitalized(openName(grade));
  if (state === "shelved") return `${name}, shelved`;
  if (state === "cleared") return `${name}, cleared`;
  return `${name}, ${state === "raised" ? "not acknowledged" : "acknowledged"}`;
}

export interface StreamState {
  readonly alarm?: StreamAlarm | null;
  readonly failing?: readonly FailingStep[];
  readonly behind?: { step: string; reason: string } | null;
}

/** The mark of a stream: its worst alarm, else faults of its data. Whether data arrives does not matter. */
export function markOfStream({ alarm, failing, behind }: StreamState): Mark {
  const of_alarm = alarm ? markOfAlarm(alarm) : null;
  if (of_alarm !== null && of_alarm !== "shelved") return of_alarm;
  if (behind || failing?.length) return "fault";
  return of_alarm ?? "ok";
}

/** The state of a stream in a few words; "" if it is healthy. */
export function streamInWords({ alarm, failing, behind }: StreamState): string {
  const steps = failing ?? [];
  return [
    // The filled mark shows that it is not acknowledged; a list has room for one word.
    alarm ? alarmInWords(alarm).replace(", not acknowledged", "") : "",
    steps.length === 1 ? `failing: ${steps[0]!.step}` : steps.length ? `${steps.length} failing steps` : "",
    delayInShort({ behind: behind ?? null }) ?? "",
  ]
    .filter(Boolean)
    .join(" · ");
}
