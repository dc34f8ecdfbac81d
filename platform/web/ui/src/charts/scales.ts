// The ends of axes. Pure.

/** Around the values, with room above and below; never without height. */
export function yRange(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  if (low === high) {
    const room = Math.abs(low) * 0.1 || 1;
    return [low - room, high + room];
  }
  const room = (high - low) * 0.08;
  // A quantity that is never negative keeps its foot on zero where it comes near.
  return [low >= 0 && low < (high - low) * 0.5 ? 0 : low - room, high + room];
}

/** The range that puts `range` into lane `lane` of `lanes`, counted from the top. */
export function laneRange(range: [number, number], lane: number, lanes: number): [number, number] {
  const [low, high] = range;
  const height = high - low;
  return [low - height * (lanes - 1 - lane), high + height * lane];
}

/** The smallest of 1, 2, 5 times a power of ten that is not below `value`. */
export function niceCeiling(value: number): number {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 5, 10]) if (step * power >= value * (1 - 1e-12)) return step * power;
  return 10 * power;
}
