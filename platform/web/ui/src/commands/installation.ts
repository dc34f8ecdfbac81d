// Where forwarders send data to: pure functions.

import type { Installation } from "../api/types";

/** The usual port of the forward protocol, if no gateway reports its own. */
const FORWARD_PORT = 24224;

export interface Receiver {
  readonly host: string;
  readonly port: number;
  /** The port is bound to the server's loopback interface, and the browser runs on another machine. */
  readonly local: boolean;
}

const ANY = new Set(["0.0.0.0", "::", ""]);

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}

/** `host:port`, `[::1]:port`; null for anything else. */
function parseAddress(address: string): { host: string; port: number } | null {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d+)$/.exec(address);
  return match ? { host: match[1] ?? match[2] ?? "", port: Number(match[3]) } : null;
}

/** A gateway's port, with the host name of the page if the gateway listens on all interfaces. */
export function receiver(installation: Installation | null, page_host: string): Receiver {
  const page = page_host.replace(/^\[|\]$/g, "") || "localhost";
  const found = (installation?.forward ?? []).map(parseAddress).filter((each) => each !== null);
  const open = found.find(({ host }) => !isLoopback(host));
  const address = (isLoopback(page) ? found[0] : (open ?? found[0])) ?? { host: "", port: FORWARD_PORT };
  const host = ANY.has(address.host) ? page : address.host;
  return { host, port: address.port, local: isLoopback(host) && !isLoopback(page) };
}
