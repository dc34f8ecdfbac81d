import { LitElement, type PropertyValues, type TemplateResult, css, html, nothing, svg } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import type { Alarm } from "../api/types";
import { outputKind } from "../charts/outputs";
import { formatDate, formatFrequency, formatValue, outputName } from "../display/format";
import { base } from "../display/styles";
import { api } from "../services";
import { type Range, comparedRows, linePath, meanDecibel, rangeOf, rowsAround } from "./alarm-picture";
import { entryInWords } from "./alarm-words";

const PICTURE = { width: 640, height: 120 };

type Line = readonly (number | null)[];

/** Decibels by bin. */
interface SpectrumPicture {
  name: string;
  highest_hz: number;
  now: Line;
  before: Line;
}

/** One alarm in full: the values around it, its spectrum, what deviates, its history and its rows. */
@customElement("wv-alarm-detail")
export class AlarmDetail extends LitElement {
  static override styles = [
    base,
    css`
      :host {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr));
        gap: 14px 28px;
        margin-top: 14px;
        padding-top: 12px;
        border-top: 1px solid var(--line);
        font-size: 13px;
      }
      h2 {
        margin-bottom: 6px;
        font-size: 13px;
        font-weight: 650;
        letter-spacing: 0.01em;
      }
      .picture {
        grid-column: 1 / -1;
      }
      .picture .about {
        color: var(--muted);
        font-size: 12px;
        font-weight: 400;
      }
      svg {
        display: block;
        width: 100%;
        height: 120px;
        border-radius: 8px;
        background: var(--raised);
      }
      svg path {
        fill: none;
        stroke: var(--text);
        stroke-width: 1.6;
        vector-effect: non-scaling-stroke;
      }
      svg path.before {
        stroke: var(--line-strong);
      }
      svg line {
        stroke-width: 1;
        stroke-dasharray: 4 4;
        vector-effect: non-scaling-stroke;
      }
      svg .warning {
        stroke: var(--warn);
      }
      svg .danger {
        stroke: var(--bad);
      }
      svg .raised {
        stroke: var(--muted);
        stroke-dasharray: none;
      }
      table {
        width: 100%;
        border-collapse: collapse;
      }
      th {
        color: var(--muted);
        font-size: 12px;
        font-weight: 500;
        text-align: right;
      }
      th:first-child,
      td:first-child {
        text-align: left;
        overflow-wrap: anywhere;
      }
      td {
        padding: 3px 0 3px 10px;
        text-align: right;
        font-variant-numeric: tabular-nums;
      }
      td:first-child {
        padding-left: 0;
      }
      .history li {
        padding: 3px 0;
        overflow-wrap: anywhere;
      }
    `,
  ];

  @property({ attribute: false }) alarm!: Alarm;
  /** Values of the judged column around the alarm. */
  @state() private values: Line = [];
  @state() private spectrum: SpectrumPicture | null = null;

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (!changed.has("alarm")) return;
    if (changed.get("alarm")?.reference !== this.alarm.reference) {
      this.values = [];
      this.spectrum = null;
    }
    void this.#readPictures(this.alarm);
  }

  protected override render() {
    const { alarm } = this;
    return html`
      ${this.#trendPicture(alarm)} ${this.#spectrumPicture()} ${contributions(alarm)}
      <div>
        <h2>History</h2>
        <ol class="history">
          ${alarm.history.map(
            (entry) =>
              html`<li>
                <span class="muted number">${formatDate(entry.at_ns / 1e9)}</span> ${entryInWords(entry)}${
                  entry.text ? html`: ${entry.text}` : nothing
                }
              </li>`,
          )}
        </ol>
      </div>
      <div>
        <h2>Evidence</h2>
        <ul aria-label="Rows of the arrays at the time of the alarm">
          ${alarm.evidence.map(
            (rows) => html`<li class="mono">${rows.array}[${rows.first}:${rows.first + rows.count}]</li>`,
          )}
        </ul>
      </div>
    `;
  }

  #trendPicture(alarm: Alarm) {
    const { values } = this;
    if (values.length < 2) return nothing;
    const range = rangeOf(values, [alarm.warning, alarm.danger]);
    const { width, height } = PICTURE;
    const y = (value: number) => height - ((value - range.lowest) / (range.highest - range.lowest)) * height;
    const x = ((alarm.row - rowsAround(alarm).first) / (values.length - 1)) * width;
    const level = (value: number | null, name: string) =>
      value === null
        ? nothing
        : svg`<line class=${name} x1="0" x2=${width} y1=${y(value)} y2=${y(value)}></line>`;
    return picture(
      html`${alarm.column} of ${alarm.output}, ${values.length} rows around the alarm`,
      `${alarm.column} before and after the alarm, with the warning and danger levels`,
      "alarm-picture",
      svg`${level(alarm.warning, "warning")} ${level(alarm.danger, "danger")}
        <line class="raised" x1=${x} x2=${x} y1="0" y2=${height}></line>
        ${line(values, range)}`,
    );
  }

  #spectrumPicture() {
    const { spectrum } = this;
    if (!spectrum) return nothing;
    const known = [...spectrum.now, ...spectrum.before].filter((value): value is number => value !== null);
    if (known.length === 0) return nothing;
    const range = {
      lowest: known.reduce((least, value) => Math.min(least, value)),
      highest: known.reduce((most, value) => Math.max(most, value)) + 1,
    };
    return picture(
      html`${spectrum.name} at the alarm
        <span class="about"
          >0 to ${formatFrequency(spectrum.highest_hz)}, in decibels; the fainter line is from long before</span
        >`,
      "The spectrum at the time of the alarm, and long before",
      "alarm-spectrum",
      svg`${line(spectrum.before, range, "before")}${line(spectrum.now, range)}`,
    );
  }

  async #readPictures(alarm: Alarm): Promise<void> {
    const isShown = () => alarm.reference === this.alarm.reference;
    const values = await readValues(alarm);
    if (!isShown()) return;
    this.values = values;
    const spectrum = await readSpectrum(alarm);
    if (isShown()) this.spectrum = spectrum;
  }
}

function picture(title: TemplateResult, label: string, test_id: string, content: unknown): TemplateResult {
  return html`<div class="picture">
    <h2>${title}</h2>
    <svg
      viewBox="0 0 ${PICTURE.width} ${PICTURE.height}"
      preserveAspectRatio="none"
      role="img"
      data-testid=${test_id}
      aria-label=${label}
    >
      ${content}
    </svg>
  </div>`;
}

function line(values: Line, range: Range, name = ""): TemplateResult {
  return svg`<path class=${name} d=${linePath(values, range, PICTURE.width, PICTURE.height)}></path>`;
}

function contributions({ contributions }: Alarm) {
  if (contributions.length === 0) return nothing;
  return html`<div>
    <h2>What stands out</h2>
    <table>
      <thead>
        <tr>
          <th scope="col">Column</th>
          <th scope="col">Value</th>
          <th scope="col">Usual</th>
          <th scope="col" title="In units of the usual spread">Deviation</th>
        </tr>
      </thead>
      <tbody>
        ${contributions.map(
          (each) =>
            html`<tr>
              <td>${each.column}</td>
              <td>${formatValue(each.value)}</td>
              <td>${formatValue(each.usual)}</td>
              <td>${each.deviation > 0 ? "+" : ""}${formatValue(each.deviation)}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** The column that was judged; empty if its rows are no longer kept, or belong to another array. */
async function readValues(alarm: Alarm): Promise<Line> {
  try {
    const reference = `${alarm.stream}:${alarm.output}`;
    const array = await api.array(reference);
    const { first, stop } = rowsAround(alarm);
    if (first < array.start || array.uid !== alarm.array) return [];
    const columns = (array.attrs["columns"] as string[] | undefined) ?? [];
    // A rule may name "rms" of all channels: then the worst of them leads.
    const whole = columns.indexOf(alarm.column);
    const chosen = whole >= 0 ? whole : columns.indexOf(alarm.leading ?? "");
    if (chosen < 0) return [];
    return (await api.rows(reference, first, stop)).map((row) => row[chosen] ?? null);
  } catch {
    return [];
  }
}

/** The first output that is a spectrum; null if there is none, or its rows are no longer kept. */
async function readSpectrum(alarm: Alarm): Promise<SpectrumPicture | null> {
  for (const rows of alarm.evidence) {
    try {
      const array = await api.array(rows.array);
      if (outputKind(array) !== "spectrum") continue;
      const { now, before } = comparedRows(rows, array.start);
      const [there, earlier] = await Promise.all([
        api.rows(rows.array, ...now),
        before[1] > before[0] ? api.rows(rows.array, ...before) : [],
      ]);
      const bins = meanDecibel(there);
      const highest_hz = (bins.length - 1) * Number(array.attrs["frequency_step_hz"]);
      return { name: outputName(rows.array), highest_hz, now: bins, before: meanDecibel(earlier) };
    } catch {
      // The rows were removed since the alarm; its numbers are still shown.
    }
  }
  return null;
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-alarm-detail": AlarmDetail;
  }
}
