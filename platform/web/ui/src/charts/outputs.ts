// How an array is drawn, from its attributes: pure functions.

import type { ArraySummary, StreamSummary } from "../api/types";
import { MAX_COLUMNS } from "../live/trend-feed";

export type OutputKind = "spectrum" | "trend" | "samples" | "other";

/** A new array with another layout renames the old one to `stream:output~1`. */
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

/** The order of panels: spectra, scores, other trends, samples. */
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

/** The first of the streams with the most outputs: of those that are `fresh`, or of all if none is. */
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
