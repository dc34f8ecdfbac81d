// What the page shows, as the hash of its address: `#/stream/turbine.t07.blade1`.

export type Route =
  | { readonly page: "streams" }
  | { readonly page: "stream"; readonly reference: string }
  | { readonly page: "policies" }
  | { readonly page: "policy"; readonly reference: string }
  | { readonly page: "alarms" }
  | { readonly page: "alarm"; readonly reference: string }
  | { readonly page: "refused" }
  /** No page of the dashboard has this address. */
  | { readonly page: "unknown"; readonly address: string };

const LISTS = ["streams", "policies", "alarms", "refused"] as const;
const ONES = ["stream", "policy", "alarm"] as const;

/** A query behind the path is left alone. */
export function parseRoute(hash: string): Route {
  const [path = ""] = hash.replace(/^#/, "").split("?");
  const [name = "", ...rest] = path.replace(/^\//, "").replace(/\/$/, "").split("/");
  const reference = decode(rest.join("/"));
  if (name === "" && rest.length === 0) return { page: "streams" };
  const one = ONES.find((page) => page === name);
  if (one && reference) return { page: one, reference };
  const list = LISTS.find((page) => page === name);
  if (list && rest.length === 0) return { page: list };
  return { page: "unknown", address: decode(hash) };
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
