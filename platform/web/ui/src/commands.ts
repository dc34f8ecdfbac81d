// Commands and configuration to paste, for the reader's own references.

/** `word` as one word of a POSIX shell. */
export function shellWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function createPolicyCommand(reference: string, tag: string, preset: string): string {
  return `windvane policy create ${shellWord(reference)} --tag ${shellWord(tag)} --preset ${preset}`;
}

/** Where forwarders send to, as far as a browser can know: the page's host and the protocol's usual port. */
export const FORWARD_PORT = 24224;

export function fluentBitConfiguration(host: string, tag: string): string {
  return `[OUTPUT]
    Name                 forward
    Match                ${tag}
    Host                 ${host}
    Port                 ${FORWARD_PORT}
    Require_ack_response On`;
}

export function fluentdConfiguration(host: string, tag: string): string {
  return `<match ${tag}>
  @type forward
  require_ack_response true
  <server>
    host ${host}
    port ${FORWARD_PORT}
  </server>
</match>`;
}

export function pythonExample(stream: string, array: string | undefined): string {
  const lines = ["from windvane.lab import connect", "", "context = connect()"];
  lines.push(`stream = context.streams[${JSON.stringify(stream)}]`);
  if (array !== undefined) lines.push(`rows = context.arrays[${JSON.stringify(array)}][-1000:]`);
  return lines.join("\n");
}
