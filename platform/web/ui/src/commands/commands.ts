// Commands and configuration to copy: for the streams that are shown, and for the installation that answers.

import type { Installation, Policy } from "../api/types";
import type { Receiver } from "./installation";

/** `word` as one word of a POSIX shell. */
export function shellWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A `windvane` command with the home of this installation: a machine may have several. */
export function windvaneCommand(installation: Installation | null, ...words: readonly string[]): string {
  const home = installation ? ["--home", installation.home] : [];
  return ["windvane", ...[...words, ...home].map(shellWord)].join(" ");
}

/** The tag patterns of a policy: by default its reference. */
export function tagsOf({ tags, reference }: Policy): readonly string[] {
  return tags ?? [reference];
}

export function createPolicyCommand(
  installation: Installation | null,
  reference: string,
  tag: string,
  preset: string,
): string {
  return windvaneCommand(installation, "policy", "create", reference, "--tag", tag, "--preset", preset);
}

export function fluentBitConfiguration({ host, port }: Receiver, tag: string): string {
  return `[OUTPUT]
    Name                 forward
    Match                ${tag}
    Host                 ${host}
    Port                 ${port}
    Require_ack_response On
    Retry_Limit          no_limits
    net.io_timeout       20s`;
}

export function fluentdConfiguration({ host, port }: Receiver, tag: string): string {
  return `<match ${tag}>
  @type forward
  require_ack_response true
  <server>
    host ${host}
    port ${port}
  </server>
</match>`;
}

export function pythonExample(
  installation: Installation | null,
  stream: string,
  array: string | undefined,
): string {
  const home = installation ? JSON.stringify(installation.home) : "";
  const lines = ["from windvane.lab import connect", "", `context = connect(${home})`];
  lines.push(`stream = context.streams[${JSON.stringify(stream)}]`);
  if (array !== undefined) lines.push(`rows = context.arrays[${JSON.stringify(array)}][-1000:]`);
  return lines.join("\n");
}
