// Why a stream is behind, in words.

import type { StreamSummary } from "../api/api";
import { formatCount, formatDuration } from "../display/format";

type Late = Pick<StreamSummary, "behind" | "lag_chunks" | "checkpoint_age_s">;

/** `behind: condition`, for a list; null while the stream is up to date. */
export function delayInShort({ behind }: Late): string | null {
  if (!behind) return null;
  return behind.step ? `behind: ${behind.step}` : "behind";
}

/** What the page of a stream says of it; null while it is up to date. */
export function delayInWords({ behind, lag_chunks, checkpoint_age_s }: Late): string | null {
  if (!behind) return null;
  const waiting = lag_chunks
    ? `${formatCount(lag_chunks)} ${lag_chunks === 1 ? "chunk waits" : "chunks wait"}`
    : "It is behind";
  const step = behind.step ? ` for the step ${behind.step}` : "";
  const reason = behind.reason ? `: ${behind.reason.replace(/[.]$/, "")}` : "";
  const age =
    checkpoint_age_s == null ? "" : ` The last checkpoint is ${formatDuration(checkpoint_age_s)} old.`;
  // A slow step loses nothing; of other causes, such as a damaged file, the reason says what is known.
  return `${waiting}${step}${reason}.${age}${behind.step ? " Nothing is lost." : ""}`;
}
