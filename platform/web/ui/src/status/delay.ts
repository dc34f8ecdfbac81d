// Why a stream is behind: pure functions.

import type { StreamSummary } from "../api/types";
import { formatCounted, formatDuration } from "../display/format";

type Delay = Partial<Pick<StreamSummary, "behind" | "lag_chunks" | "checkpoint_age_s">>;

/** `behind: condition`, for a list; null while the stream is up to date. */
export function delayInShort({ behind }: Delay): string | null {
  if (!behind) return null;
  return behind.step ? `behind: ${behind.step}` : "behind";
}

/** `608 chunks wait for the step condition: …`, for the page of a stream; null while it is up to date. */
export function delayInWords({ behind, lag_chunks, checkpoint_age_s }: Delay): string | null {
  if (!behind) return null;
  const waiting = lag_chunks
    ? `${formatCounted(lag_chunks, "chunk")} ${lag_chunks === 1 ? "waits" : "wait"}`
    : "It is behind";
  const step = behind.step ? ` for the step ${behind.step}` : "";
  const reason = behind.reason ? `: ${behind.reason.replace(/[.]$/, "")}` : "";
  const age =
    checkpoint_age_s == null ? "" : ` The last checkpoint is ${formatDuration(checkpoint_age_s)} old.`;
  // A slow step loses no data. For other causes, such as a damaged file, only the reason is known.
  return `${waiting}${step}${reason}.${age}${behind.step ? " No data is lost." : ""}`;
}
