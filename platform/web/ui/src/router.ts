// Routes: the hash of the address names the page, such as `#/stream/turbine.t07.blade1`.

export type Route =
  | { readonly page: "streams" }
  | { readonly page: "stream"; readonly reference: string }
  | { readonly page: "policies" }
  | { readonly page: "policy"; readonly reference: string }
  | { readonly page: "alarms" }
  | { readonly page: "alarm"; readonly reference: string }
  | { readonly page: "dead-letters" }
  /** No page has this address. */
  | { readonly page: "unknown"; readonly address: string };

const LISTS = ["streams", "policies", "alarms", "dead-letters"] as const;
const ONES = ["stream", "policy", "alarm"] as const;
/** Former names, which bookmarks may have. */
const ALIASES: ReadonlyMap<string, string> = new Map([["refused", "dead-letters"]]);

/** The query after the path is ignored. */
export function parseRoute(hash: string): Route {
  const [path = ""] = hash.replace(/^#/, "").split("?");
  const [given = "", ...rest] = path.replace(/^\//, "").replace(/\/$/, "").split("/");
  const name = ALIASES.get(given) ?? given;
  const reference = decode(rest.join("/"));
  if (name === "" && rest.length === 0) return { page: "streams" };
  const one = ONES.find((page) => page === name);
  if (one && reference) return { page: one, reference };
  const list = LISTS.find((page) => page === name);
  if (list && rest.length === 0) return { page: list };
  return { page: "unknown", address: decode(hash) };
}

/** The present address of a page that has a former name; null for all others. */
export function redirect(hash: string): string | null {
  const route = parseRoute(hash);
  const isFormer = [...ALIASES.keys()].some((name) => hash.startsWith(`#/${name}`));
  return isFormer && route.page !== "unknown" ? formatRoute(route) : null;
}

export function formatRoute(route: Exclude<Route, { page: "unknown" }>): string {
  return "reference" in route ? `#/${route.page}/${encodeURIComponent(route.reference)}` : `#/${route.page}`;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
