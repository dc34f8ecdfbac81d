// Numbers, times and references as text. Pure functions.

const MINUS = "\u2212";
const NARROW_SPACE = "\u202f";
const NONE = "\u2013";

const DECIMAL_PREFIXES = ["", "k", "M", "G", "T", "P"] as const;

/** Three significant digits: 0.123, 1.23, 12.3, 123. */
function threeDigits(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.0995) return value.toPrecision(2);
  if (size < 9.995) return value.toFixed(2);
  if (size < 99.95) return value.toFixed(1);
  return value.toFixed(0);
}

/** `value` with a decimal prefix and `unit`: 1.23 kB/s, 45.6 M. Whole numbers below 1,000 stay whole. */
export function formatQuantity(value: number | null | undefined, unit = ""): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  let scaled = Math.abs(value);
  let step = 0;
  while (scaled >= 999.5 && step < DECIMAL_PREFIXES.length - 1) {
    scaled /= 1000;
    step += 1;
  }
  const digits = step === 0 && Number.isInteger(scaled) ? scaled.toFixed(0) : threeDigits(scaled);
  const tail = `${DECIMAL_PREFIXES[step]}${unit}`;
  return `${value < 0 ? MINUS : ""}${digits}${tail ? NARROW_SPACE + tail : ""}`;
}

/** A whole number with separators of thousands. */
export function formatCount(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

/** `noun` in the number that `count` needs. */
export function plural(count: number, noun: string): string {
  return count === 1 ? noun : `${noun}s`;
}

/** `1 chunk`, `1,200 chunks`. */
export function formatCounted(count: number, noun: string): string {
  return `${formatCount(count)} ${plural(count, noun)}`;
}

/** A measured value: four significant digits, scientific if the plain form would be long. */
export function formatValue(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : `${MINUS}\u221e`;
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text =
    size >= 1e6 || size < 1e-3
      ? value.toExponential(2).replace("e+", "e")
      : size >= 1000
        ? value.toFixed(0)
        : String(Number(value.toPrecision(4)));
  return text.replaceAll("-", MINUS);
}

/** A value on an axis, without trailing zeros. */
export function formatTick(value: number): string {
  return formatValue(value).replace(/\.?0+e/, "e");
}

/** A level in decibels, one decimal place. */
export function formatDecibel(value: number): string {
  return Number.isFinite(value) ? `${value.toFixed(1).replace("-", MINUS)}${NARROW_SPACE}dB` : NONE;
}

/** Unit and divisor for frequencies up to `highest_hz`. */
export function frequencyUnit(highest_hz: number): { unit: string; divisor: number } {
  if (highest_hz >= 2e6) return { unit: "MHz", divisor: 1e6 };
  if (highest_hz >= 2e3) return { unit: "kHz", divisor: 1e3 };
  return { unit: "Hz", divisor: 1 };
}

/** A frequency in its own unit: 50 Hz, 3.25 kHz. */
export function formatFrequency(frequency_hz: number): string {
  const { unit, divisor } = frequencyUnit(Math.abs(frequency_hz) * 2);
  return `${Number((frequency_hz / divisor).toPrecision(4))}${NARROW_SPACE}${unit}`;
}

/** now, 12 s ago, 5 min ago, 3 h ago, 2 d ago; never for null. */
export function formatAgo(elapsed_ms: number | null): string {
  if (elapsed_ms === null || !Number.isFinite(elapsed_ms)) return "never";
  const elapsed_s = elapsed_ms / 1000;
  if (elapsed_s < 1.5) return "now";
  if (elapsed_s < 99.5) return `${Math.round(elapsed_s)} s ago`;
  if (elapsed_s < 99.5 * 60) return `${Math.round(elapsed_s / 60)} min ago`;
  if (elapsed_s < 48 * 3600) return `${Math.round(elapsed_s / 3600)} h ago`;
  return `${Math.round(elapsed_s / 86400)} d ago`;
}

/** A duration: 80 ms, 4.2 s, 3 min 20 s. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 99.5) return `${Number(seconds.toPrecision(3))} s`;
  if (seconds < 6000) {
    const whole_s = Math.round(seconds);
    const rest_s = whole_s % 60;
    return `${Math.floor(whole_s / 60)} min${rest_s ? ` ${rest_s} s` : ""}`;
  }
  return `${Number((seconds / 3600).toPrecision(3))} h`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** The local time of day of `epoch_s`; `decimals` of the second for rows that are close together. */
export function formatClock(epoch_s: number, decimals = 0): string {
  const scale = 10 ** decimals;
  const rounded_s = Math.floor(epoch_s * scale + 1e-6) / scale;
  const date = new Date(rounded_s * 1000);
  const whole = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  if (decimals === 0) return whole;
  const fraction = rounded_s - Math.floor(rounded_s);
  return `${whole}.${Math.round(fraction * scale)
    .toString()
    .padStart(decimals, "0")}`;
}

/** The local zone at `epoch_s`, as its offset: UTC, UTC+2, UTC\u22123:30. */
export function formatZone(epoch_s: number): string {
  const offset_min = -new Date(epoch_s * 1000).getTimezoneOffset();
  if (!offset_min) return "UTC";
  const size_min = Math.abs(offset_min);
  const rest_min = size_min % 60;
  const hours = `${Math.floor(size_min / 60)}${rest_min ? `:${two(rest_min)}` : ""}`;
  return `UTC${offset_min < 0 ? MINUS : "+"}${hours}`;
}

/** The local date and time of `epoch_s` with the zone: 2030-01-01 08:00:00 UTC+1. */
export function formatMoment(epoch_s: number): string {
  return `${formatDate(epoch_s)} ${formatZone(epoch_s)}`;
}

/** The local date and time of `epoch_s`. */
export function formatDate(epoch_s: number): string {
  const date = new Date(epoch_s * 1000);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${formatClock(epoch_s)}`;
}

/** Milliseconds since the epoch of an RFC 3339 time with any number of decimals; null if it is not one. */
export function parseTime(text: string | null | undefined): number | null {
  if (!text) return null;
  const time_ms = Date.parse(text.replace(/(\.\d{3})\d+/, "$1"));
  return Number.isNaN(time_ms) ? null : time_ms;
}

/** `turbine.t07.blade1` as the prefix `turbine.t07.` and the leaf `blade1`. */
export function splitReference(reference: string): { prefix: string; leaf: string } {
  const cut = reference.lastIndexOf(".") + 1;
  return { prefix: reference.slice(0, cut), leaf: reference.slice(cut) };
}

/** The output's name in an array's reference: `spectrum` of `voice:spectrum`. */
export function outputName(reference: string): string {
  return reference.slice(reference.indexOf(":") + 1);
}

/** The same with a capital: the title of its panel. */
export function outputTitle(reference: string): string {
  return capitalized(outputName(reference));
}

export function capitalized(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
