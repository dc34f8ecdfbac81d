// Which picture an array gets, by what its attributes say.

import type { ArraySummary, StreamSummary } from "../api/api";
import { MAX_COLUMNS } from "../live/trend-feed";

export type OutputKind = "spectrum" | "trend" | "samples" | "other";

/** A new array with another layout sets the old one aside as `stream:output~1`. */
export function isSetAside(reference: string): boolean {
  return /~\d+$/.test(reference);
}

export function outputKind(array: ArraySummary): OutputKind {
  if (typeof array.dtype !== "string") return "other";
  const row_shape = array.shape.slice(1);
  if (typeof array.attrs["frequency_step_hz"] === "number")
    return row_shape.length > 2 ? "other" : "spectrum";
  if (Array.isArray(array.attrs["columns"])) return "trend";
  const width = row_shape.reduce((product, length) => product * length, 1);
  return row_shape.length <= 1 && width <= MAX_COLUMNS ? "samples" : "other";
}

const ORDER: readonly OutputKind[] = ["spectrum", "trend", "samples", "other"];

/** As they are shown: spectra, then scores, then other trends, samples last. */
export function sortOutputs(arrays: readonly ArraySummary[]): ArraySummary[] {
  const rank = (array: ArraySummary): number =>
    2 * ORDER.indexOf(outputKind(array)) + (isScore(array) ? 0 : 1);
  return [...arrays].sort(
    (one, other) => rank(one) - rank(other) || one.reference.localeCompare(other.reference),
  );
}

function isScore(array: ArraySummary): boolean {
  return array.attrs["kind"] === "score";
}

/** The stream to begin with: among those that are `fresh`, or else among all, the first of those with the most outputs. */
export function firstToShow(
  streams: readonly StreamSummary[],
  fresh: (stream: StreamSummary) => boolean,
): StreamSummary {
  const alive = streams.filter(fresh);
  const outputs = (stream: StreamSummary): number =>
    (stream.arrays ?? []).filter((reference) => !isSetAside(reference)).length;
  return (alive.length ? alive : streams).reduce((best, stream) =>
    outputs(stream) > outputs(best) ? stream : best,
  );
}
