// The image of the waterfall: each row of levels is a line of pixels in a ring, so that a new row paints one
// line.

import { colorTable } from "./colormap";
import type { LevelHistory } from "../live/level-history";
import type { LevelRange } from "../live/level-range";

const COLORS = colorTable(256);
const BACKGROUND = 0;

/** The `width` + 1 bins at the edges of `width` pixels that show the bins `low` to `high` (may be fractions). */
export function pixelEdges(width: number, low: number, high: number, bins: number): Int32Array {
  const edges = new Int32Array(width + 1);
  for (let pixel = 0; pixel <= width; pixel++) {
    const place = low + ((high - low) * pixel) / width;
    edges[pixel] = Math.min(bins, Math.max(0, Math.round(place)));
  }
  return edges;
}

/**
 * Fills `line` with the colours of a row. The strongest of the bins of a pixel counts: a narrow line in the
 * spectrum must not disappear on a narrow screen.
 */
export function paintLine(
  line: Uint32Array,
  levels_db: Float32Array,
  edges: Int32Array,
  range: LevelRange,
): void {
  const scale = (COLORS.length - 1) / (range.high_db - range.low_db);
  const last = levels_db.length - 1;
  for (let pixel = 0; pixel < line.length; pixel++) {
    const from = Math.min(edges[pixel]!, last);
    const to = Math.max(from + 1, edges[pixel + 1]!);
    let highest = levels_db[from]!;
    for (let bin = from + 1; bin < to; bin++) if (levels_db[bin]! > highest) highest = levels_db[bin]!;
    const place = (highest - range.low_db) * scale;
    line[pixel] =
      COLORS[place <= 0 ? 0 : place >= COLORS.length - 1 ? COLORS.length - 1 : Math.round(place)]!;
  }
}

/** Memory: 4 bytes a pixel of `width` × the history's capacity. */
export class WaterfallImage {
  readonly #canvas = document.createElement("canvas");
  readonly #context = this.#canvas.getContext("2d", { willReadFrequently: true })!;
  #history: LevelHistory | null = null;
  #edges: Int32Array = new Int32Array(1);
  #range: LevelRange = { low_db: -100, high_db: 0 };
  #line = new ImageData(1, 1);
  #words = new Uint32Array(this.#line.data.buffer);
  /** Line of the newest row; older rows follow downwards, from the last line on at the top. */
  #head = 0;
  #painted_total = 0;

  /** Paints all rows, for another history, width, part of the spectrum or range. */
  set(history: LevelHistory, width: number, low_bin: number, high_bin: number, range: LevelRange): void {
    this.#history = history;
    this.#range = range;
    this.#edges = pixelEdges(width, low_bin, high_bin, history.bins);
    if (this.#canvas.width !== width || this.#canvas.height !== history.capacity) {
      this.#canvas.width = width;
      this.#canvas.height = history.capacity;
      this.#line = new ImageData(width, 1);
      this.#words = new Uint32Array(this.#line.data.buffer);
    } else {
      this.#context.clearRect(0, 0, width, history.capacity);
    }
    this.#head = 0;
    this.#words.fill(BACKGROUND);
    this.#painted_total = history.total - history.count;
    this.update();
  }

  /** Paints the rows that were added to the history. */
  update(): void {
    const history = this.#history;
    if (!history) return;
    const gained = Math.min(history.total - this.#painted_total, history.count);
    const height = this.#canvas.height;
    for (let age = gained - 1; age >= 0; age--) {
      this.#head = (this.#head - 1 + height) % height;
      paintLine(this.#words, history.levels(age), this.#edges, this.#range);
      this.#context.putImageData(this.#line, 0, this.#head);
    }
    this.#painted_total = history.total;
  }

  /** Draws the newest `rows` rows at (`left`, 0), each `row_height` high, the newest at the top. */
  drawOn(target: CanvasRenderingContext2D, left: number, rows: number, row_height: number): void {
    const { width, height } = this.#canvas;
    const first = Math.min(rows, height - this.#head);
    target.imageSmoothingEnabled = false;
    if (first > 0) {
      target.drawImage(this.#canvas, 0, this.#head, width, first, left, 0, width, first * row_height);
    }
    if (rows > first) {
      const rest = rows - first;
      target.drawImage(this.#canvas, 0, 0, width, rest, left, first * row_height, width, rest * row_height);
    }
  }
}
