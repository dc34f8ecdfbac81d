// Draws what has changed, together, in animation frames: frames of the live feed come when they like, the
// screen is painted at most MAX_DRAWS_PER_S times, and on a slow machine less often, so that the page always
// answers.

const MAX_DRAWS_PER_S = 30;
/** Drawing takes at most this share of the time. */
const BUSIEST_SHARE = 0.5;

const dirty = new Set<() => void>();
let asked = false;
let next_ms = 0;

/** Calls `draw` once in one of the next animation frames, however often it is asked for until then. */
export function requestDraw(draw: () => void): void {
  dirty.add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(paint);
}

export function cancelDraw(draw: () => void): void {
  dirty.delete(draw);
}

function paint(now_ms: number): void {
  // Animation frames come on a grid: half a millisecond early is the same frame.
  if (now_ms < next_ms - 0.5) {
    requestAnimationFrame(paint);
    return;
  }
  asked = false;
  const draws = [...dirty];
  dirty.clear();
  const begun_ms = performance.now();
  for (const draw of draws) draw();
  const taken_ms = performance.now() - begun_ms;
  next_ms = now_ms + Math.max(1000 / MAX_DRAWS_PER_S, taken_ms / BUSIEST_SHARE);
}
