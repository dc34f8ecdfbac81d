// What the platform's health says, in words: no element, no server.

import type { Health, HealthReason } from "../api/api";

export interface Trouble {
  readonly key: string;
  /** What is wrong, in a few words. */
  readonly title: string;
  /** The tier, and what it said of it. */
  readonly detail: string;
  /** What is safe, and the next step. */
  readonly advice: string;
}

interface Words {
  readonly title: string;
  readonly advice: string;
}

const KEPT = "What was acknowledged is kept.";

/** Windvane keeps no log file of its own. */
const LOG = "the log is the output of the terminal or service that runs windvane up";

/** The worst first: what stops everything is before what makes something late. */
const WORDS: ReadonlyMap<string, Words> = new Map([
  [
    "disk-full",
    {
      title: "The disk is full",
      advice: `${KEPT} Enlarge the disk, or free space on it outside the home directory; work goes on by itself.`,
    },
  ],
  [
    "io-error",
    {
      title: "The disk reports errors",
      advice: "Check the disk and its cables before you restart anything. Then run windvane verify.",
    },
  ],
  [
    "bus-away",
    {
      title: "The bus cannot be reached",
      advice: "Forwarders keep what is not acknowledged. Start the Kafka brokers, or check [kafka] in windvane.toml.",
    },
  ],
  [
    "crash-loop",
    {
      title: "A tier restarts again and again",
      advice: `${KEPT} Its last lines say why: ${LOG}. windvane up restarts the tier by itself.`,
    },
  ],
  [
    "tier-away",
    { title: "A tier is away", advice: `${KEPT} Start it with windvane up, or alone with windvane and its name.` },
  ],
  [
    "stuck",
    {
      title: "A tier is stuck",
      advice: `${KEPT} If it stays so, read its last lines: ${LOG}. Then end windvane up with Ctrl+C, or restart its service.`,
    },
  ],
  [
    "settings-broken",
    {
      title: "A settings file cannot be used",
      advice: "Correct the line that it names. What was in force stays in force; the file is read again by itself.",
    },
  ],
  [
    "no-checkpoint",
    {
      title: "Outputs have no checkpoint",
      advice:
        "Their streams wait, and their data is untouched. Put back the latest checkpoints.sqlite if you have it; " +
        "else windvane recover list says what to do.",
    },
  ],
  [
    "checkpoint-late",
    {
      title: "Checkpoints are late",
      advice: `${KEPT} The list marks the streams that are behind, with the step that holds them up.`,
    },
  ],
]);

const ORDER = [...WORDS.keys()];

/** What is wrong, the worst first; none if the platform is well. Codes that are not known come last. */
export function troubles(health: Health | null): Trouble[] {
  const reasons = health?.status === "ok" ? [] : (health?.reasons ?? []);
  return reasons
    .map((reason, at) => ({ reason, at, rank: rankOf(reason) }))
    .sort((one, other) => one.rank - other.rank || one.at - other.at)
    .map(({ reason, at }) => inWords(reason, at));
}

/** What the badge says of them, null if there is nothing to say. */
export function headline(found: readonly Trouble[]): string | null {
  if (found.length === 0) return null;
  const titles = new Set(found.map(({ title }) => title));
  return titles.size === 1 ? found[0]!.title : `${titles.size} problems`;
}

function rankOf({ code }: HealthReason): number {
  const at = ORDER.indexOf(code);
  return at < 0 ? ORDER.length : at;
}

function inWords({ tier, code, detail }: HealthReason, at: number): Trouble {
  const words = WORDS.get(code);
  const named = tier ? `${tier[0]!.toUpperCase()}${tier.slice(1)}` : "";
  const title = code === "tier-away" && tier ? `The ${tier} is away` : (words?.title ?? `Problem: ${code}`);
  const said = [named, detail].filter(Boolean).join(": ");
  return {
    key: `${tier}/${code}/${at}`,
    title,
    detail: said && !/[.!?]$/.test(said) ? `${said}.` : said,
    advice: words?.advice ?? `To find out more: ${LOG}.`,
  };
}
