// What the page shows, as the hash of its address: `#/stream/turbine.t07.blade1`.

export type Route =
  | { readonly page: "streams" }
  | { readonly page: "stream"; readonly reference: string }
  | { readonly page: "policies" }
  | { readonly page: "policy"; readonly reference: string }
  | { readonly page: "alarms" }
  | { readonly page: "alarm"; readonly reference: string }
  | { readonly page: "refused" };

export function parseRoute(hash: string): Route {
  const [page, ...rest] = hash.replace(/^#\/?/, "").split("/");
  const reference = decode(rest.join("/"));
  if (page === "stream" && reference) return { page, reference };
  if (page === "policy" && reference) return { page, reference };
  if (page === "alarm" && reference) return { page, reference };
  if (page === "policies" || page === "refused" || page === "alarms") return { page };
  return { page: "streams" };
}

export function formatRoute(route: Route): string {
  return "reference" in route ? `#/${route.page}/${encodeURIComponent(route.reference)}` : `#/${route.page}`;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
