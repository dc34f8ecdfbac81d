// The ends of axes: pure functions.

/** The range of the values with room above and below; its height is never 0. */
export function yRange(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  if (low === high) {
    const room = Math.abs(low) * 0.1 || 1;
    return [low - room, high + room];
  }
  const room = (high - low) * 0.08;
  // The axis of values that are never negative starts at zero if they come near it.
  return [low >= 0 && low < (high - low) * 0.5 ? 0 : low - room, high + room];
}

/** The axis range that draws `range` in lane `lane` of `lanes`; lane 0 is at the top. */
export function laneRange(range: [number, number], lane: number, lanes: number): [number, number] {
  const [low, high] = range;
  const height = high - low;
  return [low - height * (lanes - 1 - lane), high + height * lane];
}

/** The smallest of 1, 2 and 5 times a power of ten that is at least `value`. */
export function niceCeiling(value: number): number {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 5, 10]) if (step * power >= value * (1 - 1e-12)) return step * power;
  return 10 * power;
}
