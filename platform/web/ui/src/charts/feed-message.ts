import { type TemplateResult, html, nothing } from "lit";

/** How far a feed is. */
export type FeedState = "connecting" | "waiting" | "live" | "failed";

/** What stands in place of a picture that cannot be drawn yet; nothing where it can. */
export function feedMessage(
  feed: { readonly state: FeedState; readonly detail: string },
  rows: number,
  missing = "",
): TemplateResult | typeof nothing {
  let text = missing;
  if (feed.state === "failed") text = feed.detail;
  else if (feed.state === "connecting") text = "Connecting\u2026";
  else if (rows === 0) text = "Waiting for the first rows\u2026";
  return text ? html`<p class="message" role="status">${text}</p>` : nothing;
}
