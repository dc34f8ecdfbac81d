// Health conditions in words, with the next step: pure functions.

import type { Health, HealthCode, HealthReason } from "../api/types";
import { capitalized } from "../display/format";

export interface HealthCondition {
  readonly key: string;
  /** A few words. */
  readonly title: string;
  /** The tier, and its own message. */
  readonly detail: string;
  /** What is safe, and what to do next. */
  readonly advice: string;
}

interface Advice {
  readonly title: string;
  readonly advice: string;
}

const SAFE = "Acknowledged data is safe.";

/** Windvane does not write log files. */
const LOG = "the log is the output of the terminal or service that runs windvane up";

/** The worst first: what stops everything is before what delays a part. */
const CONDITIONS: Readonly<Record<HealthCode, Advice>> = {
  "disk-full": {
    title: "The disk is full",
    advice: `${SAFE} Enlarge the disk, or free space on it outside the home directory. Windvane then continues by itself.`,
  },
  "io-error": {
    title: "The disk reports errors",
    advice: "Check the disk and its cables before you restart anything. Then run windvane verify.",
  },
  "bus-away": {
    title: "The bus cannot be reached",
    advice: "Forwarders keep data that is not acknowledged. Start the Kafka brokers, or check [kafka] in windvane.toml.",
  },
  "crash-loop": {
    title: "A tier restarts repeatedly",
    advice: `${SAFE} The last lines of its log say why: ${LOG}. windvane up restarts the tier by itself.`,
  },
  "tier-away": {
    title: "A tier is not running",
    advice: `${SAFE} Start it with windvane up, or alone with windvane and its name.`,
  },
  stuck: {
    title: "A tier is stuck",
    advice: `${SAFE} If this does not change, read the last lines of its log: ${LOG}. Then stop windvane up with Ctrl+C, or restart its service.`,
  },
  "settings-broken": {
    title: "A settings file cannot be used",
    advice: "Correct the line that the message names. The previous settings stay in force, and the file is read again by itself.",
  },
  "no-checkpoint": {
    title: "Outputs have no checkpoint",
    advice:
      "Their streams wait, and their data is untouched. Restore the latest backup of checkpoints.sqlite if you have " +
      "one. Otherwise run windvane recover list for the next step.",
  },
  "checkpoint-late": {
    title: "Checkpoints are late",
    advice: `${SAFE} The list marks the streams that are behind, with the step that delays them.`,
  },
};

const ORDER = Object.keys(CONDITIONS);

/** Why the installation is unhealthy, the worst first; empty if it is healthy. Unknown codes are last. */
export function healthConditions(health: Health | null): HealthCondition[] {
  const reasons = health?.status === "ok" ? [] : (health?.reasons ?? []);
  return reasons
    .map((reason, at) => ({ reason, at, rank: rankOf(reason) }))
    .sort((one, other) => one.rank - other.rank || one.at - other.at)
    .map(({ reason, at }) => inWords(reason, at));
}

/** The same in a few words; null if it is healthy. */
export function headline(conditions: readonly HealthCondition[]): string | null {
  if (conditions.length === 0) return null;
  const titles = new Set(conditions.map(({ title }) => title));
  return titles.size === 1 ? conditions[0]!.title : `${titles.size} problems`;
}

function rankOf({ code }: HealthReason): number {
  const at = ORDER.indexOf(code);
  return at < 0 ? ORDER.length : at;
}

function inWords({ tier, code, detail }: HealthReason, at: number): HealthCondition {
  const known = (CONDITIONS as Partial<Record<string, Advice>>)[code];
  const named = capitalized(tier);
  const title = code === "tier-away" && tier ? `The ${tier} is not running` : (known?.title ?? `Problem: ${code}`);
  const message = [named, detail].filter(Boolean).join(": ");
  return {
    key: `${tier}/${code}/${at}`,
    title,
    detail: message && !/[.!?]$/.test(message) ? `${message}.` : message,
    advice: known?.advice ?? `For details, read the log: ${LOG}.`,
  };
}
