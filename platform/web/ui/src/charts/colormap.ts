// Viridis (Stéfan van der Walt, Nathaniel Smith; matplotlib, CC0): its lightness rises evenly, and colour
// blindness does not make its colours ambiguous. Ten published points, joined linearly.

const VIRIDIS: readonly (readonly [number, number, number])[] = [
  [0x44, 0x01, 0x54],
  [0x48, 0x28, 0x78],
  [0x3e, 0x4a, 0x89],
  [0x31, 0x68, 0x8e],
  [0x26, 0x82, 0x8e],
  [0x1f, 0x9e, 0x89],
  [0x35, 0xb7, 0x79],
  [0x6d, 0xcd, 0x59],
  [0xb4, 0xde, 0x2c],
  [0xfd, 0xe7, 0x25],
];

/** Colour at `position` in 0…1 as red, green, blue in 0…255; clamped. */
export function viridis(position: number): [number, number, number] {
  const clamped = Math.min(1, Math.max(0, Number.isNaN(position) ? 0 : position));
  const place = clamped * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const share = place - below;
  const from = VIRIDIS[below]!;
  const to = VIRIDIS[below + 1]!;
  const mix = (channel: 0 | 1 | 2): number =>
    Math.round(from[channel] + (to[channel] - from[channel]) * share);
  return [mix(0), mix(1), mix(2)];
}

/** `size` opaque colours as the 32-bit words of an ImageData on a little-endian machine (0xAABBGGRR). */
export function colorTable(size = 256): Uint32Array {
  const table = new Uint32Array(size);
  for (let index = 0; index < size; index++) {
    const [red, green, blue] = viridis(index / (size - 1));
    table[index] = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return table;
}

/** The scale as a CSS gradient. */
export function colorGradient(direction = "to right"): string {
  const colors = VIRIDIS.map(([red, green, blue]) => `rgb(${red} ${green} ${blue})`);
  return `linear-gradient(${direction}, ${colors.join(", ")})`;
}
