// Batches drawing into animation frames. Frames of the live feed arrive at any time; the screen is painted at
// most MAX_DRAWS_PER_S times per second, and less often on a slow machine, so that the page stays responsive.

const MAX_DRAWS_PER_S = 30;
/** Drawing takes at most this share of the time. */
const BUSIEST_SHARE = 0.5;

const dirty = new Set<() => void>();
let requested = false;
let next_ms = 0;

/** Calls `draw` in one of the next animation frames: once, whatever the number of requests. */
export function requestDraw(draw: () => void): void {
  dirty.add(draw);
  if (requested) return;
  requested = true;
  requestAnimationFrame(paint);
}

export function cancelDraw(draw: () => void): void {
  dirty.delete(draw);
}

function paint(now_ms: number): void {
  // Animation frames are on a grid: half a millisecond early is the same frame.
  if (now_ms < next_ms - 0.5) {
    requestAnimationFrame(paint);
    return;
  }
  requested = false;
  const draws = [...dirty];
  dirty.clear();
  const started_ms = performance.now();
  for (const draw of draws) draw();
  const taken_ms = performance.now() - started_ms;
  next_ms = now_ms + Math.max(1000 / MAX_DRAWS_PER_S, taken_ms / BUSIEST_SHARE);
}
