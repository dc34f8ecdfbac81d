import { LitElement, type PropertyValues, css, html, nothing, svg } from "lit";
import { customElement, property, query, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import {
  SHELF_TIMES,
  actionsFor,
  byUrgency,
  comparedRows,
  entryInWords,
  findingInWords,
  gradeName,
  linePath,
  meanDecibel,
  rangeOf,
  rowsAround,
  shownGrade,
  stateInWords,
} from "./alarms";
import type { Alarm, AlarmAction, AlarmSummary } from "../api/api";
import { formatAgo, formatDate, formatFrequency, formatValue, formatZone, outputName } from "../display/format";
import { outputKind } from "../charts/outputs";
import { markOfAlarm, markPicture, markStyles } from "../status/marks";
import { Poller } from "../api/poller";
import { formatRoute } from "../router";
import { api } from "../services";
import { base, controls, panel } from "../display/styles";

const INTERVAL_MS = 5000;
const MAX_ALARMS = 200;
const NAME_KEY = "windvane-name";
const PICTURE = { width: 640, height: 120 };
const VERBS: Readonly<Record<AlarmAction, string>> = {
  acknowledge: "Acknowledge",
  comment: "Comment",
  shelve: "Shelve",
  unshelve: "Unshelve",
  clear: "Clear",
};

/** Decibels by line. */
interface SpectrumPicture {
  name: string;
  highest_hz: number;
  now: readonly (number | null)[];
  before: readonly (number | null)[];
}

/** What is being said to an alarm, until it is sent. */
interface Saying {
  reference: string;
  action: AlarmAction;
}

/** The alarms: what was raised, how bad it is, where to look, and what people do about it. */
@customElement("wv-alarm-list")
export class AlarmList extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    markStyles,
    css`
      :host {
        display: block;
        width: min(1180px, 100%);
        margin: 0 auto;
        padding: calc(var(--gap) * 1.5) var(--gap) 40px;
      }
      .head {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 8px 16px;
        margin-bottom: 14px;
      }
      h1 {
        flex: 1;
        font-size: 20px;
      }
      .alarm {
        --tone: var(--good);
        --soft: var(--raised);
        margin-bottom: 10px;
        padding: 12px 16px 12px 14px;
        border-left: 4px solid var(--tone);
      }
      .alarm.grade-1 {
        --tone: var(--warn);
        --soft: var(--warn-soft);
      }
      .alarm.grade-2 {
        --tone: var(--bad);
        --soft: var(--bad-soft);
      }
      .alarm.cleared,
      .alarm.shelved {
        --tone: var(--muted);
        --soft: var(--raised);
        border-left-color: var(--line-strong);
      }
      .top {
        display: grid;
        grid-template-columns: minmax(0, 1fr) auto;
        gap: 4px 16px;
        align-items: start;
      }
      .title {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 4px 10px;
        min-width: 0;
        font-weight: 650;
        overflow-wrap: anywhere;
      }
      .grade {
        display: inline-flex;
        align-items: center;
        gap: 5px;
        padding: 1px 9px;
        border-radius: 999px;
        background: var(--soft);
        color: var(--tone);
        font-size: 12px;
        font-weight: 650;
      }
      .when {
        color: var(--muted);
        font-size: 12.5px;
        font-variant-numeric: tabular-nums;
        white-space: nowrap;
      }
      .finding {
        grid-column: 1 / -1;
        overflow-wrap: anywhere;
        font-variant-numeric: tabular-nums;
      }
      .finding::first-letter {
        text-transform: uppercase;
      }
      .last {
        grid-column: 1 / -1;
        color: var(--muted);
        font-size: 12.5px;
        overflow-wrap: anywhere;
      }
      .actions {
        display: flex;
        flex-wrap: wrap;
        gap: 6px;
        margin-top: 10px;
      }
      form {
        display: flex;
        flex-wrap: wrap;
        gap: 6px;
        margin-top: 10px;
        padding: 10px;
        border-radius: 8px;
        background: var(--raised);
      }
      form .by {
        width: 130px;
      }
      form .text {
        flex: 1 1 200px;
        min-width: 0;
      }
      .detail {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr));
        gap: 14px 28px;
        margin-top: 14px;
        padding-top: 12px;
        border-top: 1px solid var(--line);
        font-size: 13px;
      }
      .detail h2 {
        margin-bottom: 6px;
        font-size: 13px;
      }
      .picture {
        grid-column: 1 / -1;
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
      .picture .about {
        color: var(--muted);
        font-weight: 400;
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
      .problem {
        margin-bottom: 12px;
        padding: 10px 14px;
        border: 1px solid var(--line);
        border-left: 3px solid var(--bad);
        border-radius: 8px;
        background: var(--surface);
      }
      .note {
        padding: 36px 24px;
        color: var(--muted);
        text-align: center;
      }
      @media (max-width: 600px) {
        .top {
          grid-template-columns: minmax(0, 1fr);
        }
        .actions .button {
          flex: 1 1 auto;
          justify-content: center;
        }
        form .by {
          flex: 1 1 100%;
        }
      }
    `,
  ];

  /** The open alarms, as the page knows them; null before it does. */
  @property({ attribute: false }) open: readonly AlarmSummary[] | null = null;
  /** Why they could not be read. */
  @property() problem = "";
  /** The reference of the alarm that the address names. */
  @property() opened = "";
  @state() private all = false;
  @state() private detail: Alarm | null = null;
  /** Values of the judged column around the opened alarm. */
  @state() private values: readonly (number | null)[] = [];
  /** The spectrum at the time of the opened alarm, and long before. */
  @state() private spectrum: SpectrumPicture | null = null;
  @state() private saying: Saying | null = null;
  @state() private refusal = "";
  @state() private busy = false;
  @query("form .text") private text!: HTMLInputElement | null;

  /** The opened alarm and its revision, once that was asked for. */
  #read = "";

  readonly #all: Poller<AlarmSummary[]> = new Poller<AlarmSummary[]>(this, {
    interval_ms: INTERVAL_MS,
    // What is open comes by a property.
    read: async () => (this.all ? byUrgency(await api.alarms("", MAX_ALARMS)) : []),
  });

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("opened")) {
      this.detail = null;
      this.values = [];
      this.spectrum = null;
    }
    const known = this.#shown?.find(({ reference }) => reference === this.opened);
    const version = `${this.opened}@${known?.revision ?? ""}`;
    if (this.opened && version !== this.#read) {
      this.#read = version;
      void this.#readDetail(this.opened);
    }
  }

  protected override updated(changed: PropertyValues): void {
    if (changed.has("saying") && this.saying) this.text?.focus();
  }

  get #shown(): readonly AlarmSummary[] | null {
    return this.all ? this.#all.value : this.open;
  }

  protected override render() {
    const shown = this.#shown;
    const here = !this.opened || !shown || shown.some(({ reference }) => reference === this.opened);
    // One that the address names is shown also where the list does not have it (any more).
    const named = !here && this.detail ? summaryOf(this.detail) : null;
    const problem = this.refusal || this.problem || (this.all ? this.#all.error?.message : "");
    return html`
      <div class="head">
        <h1>Alarms</h1>
        <div class="segments" role="radiogroup" aria-label="Which alarms">
          ${this.#choice("Open", false)} ${this.#choice("All", true)}
        </div>
      </div>
      ${problem ? html`<p class="problem" role="alert">${problem}</p>` : nothing}
      <div data-testid="alarm-list">
        ${named ? this.#alarm(named) : nothing}
        ${
          shown === null
            ? html`<p class="panel note" role="status">${problem ? "" : "Loading\u2026"}</p>`
            : shown.length === 0 && !named
              ? html`<p class="panel note">
                  ${this.all ? "No alarm was raised yet." : "No alarm is open."} Steps of
                  <code>condition</code> raise them, and rules of a policy.
                </p>`
              : repeat(
                  shown,
                  ({ reference }) => reference,
                  (alarm) => this.#alarm(alarm),
                )
        }
      </div>
    `;
  }

  #choice(text: string, all: boolean) {
    return html`<label
      ><input
        type="radio"
        name="which"
        .checked=${this.all === all}
        @change=${() => {
          this.all = all;
          this.#all.reset();
        }}
      />${text}</label
    >`;
  }

  #alarm(alarm: AlarmSummary) {
    const grade = shownGrade(alarm);
    const opened = this.detail?.reference === alarm.reference ? this.detail : null;
    const raised_s = alarm.raised_ns / 1e9;
    return html`<article
      class="panel alarm grade-${grade} ${alarm.state}"
      data-testid="alarm"
      data-ref=${alarm.reference}
      data-state=${alarm.state}
    >
      <div class="top">
        <div class="title">
          <span class="grade" data-testid="alarm-grade"
            >${markPicture(markOfAlarm({ grade, state: alarm.state }))}${gradeName(grade)}</span
          >
          <a class="link" href=${formatRoute({ page: "stream", reference: alarm.stream })}>${alarm.stream}</a>
          <span class="muted">${alarm.name}</span>
          <span class="chip" data-testid="alarm-state">${stateInWords(alarm)}</span>
        </div>
        <span class="when" title="Event time of row ${alarm.row} of ${alarm.output}"
          >${formatDate(raised_s)} ${formatZone(raised_s)}</span
        >
        <p class="finding">${findingInWords(alarm)}</p>
        ${
          alarm.entries > 1
            ? html`<p class="last">
                ${entryInWords(alarm.last)}${alarm.last.text ? html`: ${alarm.last.text}` : nothing},
                ${formatAgo(api.now_ms() - alarm.last.at_ns / 1e6)}
              </p>`
            : nothing
        }
      </div>
      <div class="actions">
        <a
          class="button"
          href=${formatRoute(opened ? { page: "alarms" } : { page: "alarm", reference: alarm.reference })}
          aria-expanded=${opened ? "true" : "false"}
          >${opened ? "Hide" : "Look"}</a
        >
        ${actionsFor(alarm).map((action) => this.#button(alarm, action))}
      </div>
      ${this.saying?.reference === alarm.reference ? this.#form(this.saying) : nothing}
      ${opened ? this.#detail(opened) : nothing}
    </article>`;
  }

  #button(alarm: AlarmSummary, action: AlarmAction) {
    const chosen = this.saying?.reference === alarm.reference && this.saying.action === action;
    return html`<button
      class="button"
      type="button"
      aria-pressed=${chosen ? "true" : "false"}
      @click=${() => (this.saying = chosen ? null : { reference: alarm.reference, action })}
    >
      ${VERBS[action]}
    </button>`;
  }

  #form({ action }: Saying) {
    return html`<form @submit=${this.#send}>
      <input
        class="field by"
        name="by"
        required
        maxlength="100"
        placeholder="Your name"
        aria-label="Your name"
        .value=${localStorage.getItem(NAME_KEY) ?? ""}
      />
      ${
        action === "shelve"
          ? html`<select class="field" name="for_s" aria-label="For how long">
              ${SHELF_TIMES.map(([text, seconds]) => html`<option value=${seconds}>${text}</option>`)}
            </select>`
          : nothing
      }
      <input
        class="field text"
        name="text"
        maxlength="2000"
        ?required=${action === "comment"}
        placeholder=${action === "comment" ? "Comment" : "Reason (optional)"}
        aria-label="Text"
        autocomplete="off"
      />
      <button class="button primary" type="submit" ?disabled=${this.busy}>${VERBS[action]}</button>
    </form>`;
  }

  #detail(alarm: Alarm) {
    return html`<div class="detail" data-testid="alarm-detail">
      ${this.#picture(alarm)} ${this.#spectrumPicture()}
      ${
        alarm.contributions.length
          ? html`<div>
              <h2>What stands out</h2>
              <table>
                <thead>
                  <tr>
                    <th scope="col">Column</th>
                    <th scope="col">Was</th>
                    <th scope="col">Usually</th>
                    <th scope="col">Spreads</th>
                  </tr>
                </thead>
                <tbody>
                  ${alarm.contributions.map(
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
            </div>`
          : nothing
      }
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
        <h2>Rows of that time</h2>
        <ul>
          ${alarm.evidence.map(
            (rows) => html`<li class="mono">${rows.array}[${rows.first}:${rows.first + rows.count}]</li>`,
          )}
        </ul>
      </div>
    </div>`;
  }

  #picture(alarm: Alarm) {
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
    return html`<div class="picture">
      <h2>${alarm.column} of ${alarm.output}, ${values.length} rows around the alarm</h2>
      <svg
        viewBox="0 0 ${width} ${height}"
        preserveAspectRatio="none"
        role="img"
        data-testid="alarm-picture"
        aria-label="${alarm.column} before and after the alarm, with the levels of warning and danger"
      >
        ${level(alarm.warning, "warning")} ${level(alarm.danger, "danger")}
        ${svg`<line class="raised" x1=${x} x2=${x} y1="0" y2=${height}></line>`}
        ${svg`<path d=${linePath(values, range, width, height)}></path>`}
      </svg>
    </div>`;
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
    const { width, height } = PICTURE;
    return html`<div class="picture">
      <h2>
        ${spectrum.name} at that time
        <span class="about">0 to ${formatFrequency(spectrum.highest_hz)}, in decibels; fainter: long before</span>
      </h2>
      <svg
        viewBox="0 0 ${width} ${height}"
        preserveAspectRatio="none"
        role="img"
        data-testid="alarm-spectrum"
        aria-label="The spectrum at the time of the alarm, and long before"
      >
        ${svg`<path class="before" d=${linePath(spectrum.before, range, width, height)}></path>`}
        ${svg`<path d=${linePath(spectrum.now, range, width, height)}></path>`}
      </svg>
    </div>`;
  }

  async #readDetail(reference: string): Promise<void> {
    try {
      const alarm = await api.alarm(reference);
      if (reference !== this.opened) return;
      this.detail = alarm;
      this.refusal = "";
      const values = await this.#readValues(alarm);
      if (reference !== this.opened) return;
      this.values = values;
      const spectrum = await this.#readSpectrum(alarm);
      if (reference === this.opened) this.spectrum = spectrum;
    } catch (reason) {
      if (reference === this.opened) this.refusal = inWords(reason);
    }
  }

  /** The column that was judged; nothing where its rows are no longer kept, or are others. */
  async #readValues(alarm: Alarm): Promise<readonly (number | null)[]> {
    try {
      const reference = `${alarm.stream}:${alarm.output}`;
      const array = await api.array(reference);
      const { first, stop } = rowsAround(alarm);
      if (first < array.start || array.uid !== alarm.array) return [];
      const columns = (array.attrs["columns"] as string[] | undefined) ?? [];
      // A rule may name "rms" of every channel: then it is the one that was worst.
      const whole = columns.indexOf(alarm.column);
      const chosen = whole >= 0 ? whole : columns.indexOf(alarm.leading ?? "");
      if (chosen < 0) return [];
      return (await api.rows(reference, first, stop)).map((row) => row[chosen] ?? null);
    } catch {
      return [];
    }
  }

  /** The first output that is a spectrum; null where there is none, or its rows are no longer kept. */
  async #readSpectrum(alarm: Alarm): Promise<SpectrumPicture | null> {
    for (const rows of alarm.evidence) {
      try {
        const array = await api.array(rows.array);
        if (outputKind(array) !== "spectrum") continue;
        const { now, before } = comparedRows(rows, array.start);
        const [there, earlier] = await Promise.all([
          api.rows(rows.array, ...now),
          before[1] > before[0] ? api.rows(rows.array, ...before) : [],
        ]);
        const lines = meanDecibel(there);
        const highest_hz = (lines.length - 1) * Number(array.attrs["frequency_step_hz"]);
        return { name: outputName(rows.array), highest_hz, now: lines, before: meanDecibel(earlier) };
      } catch {
        // The rows were dropped since; the numbers are told all the same.
      }
    }
    return null;
  }

  #send = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const { saying } = this;
    if (!saying || this.busy) return;
    const form = new FormData(event.target as HTMLFormElement);
    const by = String(form.get("by") ?? "").trim();
    localStorage.setItem(NAME_KEY, by);
    const for_s = saying.action === "shelve" ? { for_s: Number(form.get("for_s")) } : {};
    this.busy = true;
    try {
      const alarm = await api.actOnAlarm(saying.reference, saying.action, {
        by,
        text: String(form.get("text") ?? ""),
        ...for_s,
      });
      if (this.detail?.reference === alarm.reference) this.detail = alarm;
      this.saying = null;
      this.refusal = "";
    } catch (reason) {
      this.refusal = inWords(reason);
    } finally {
      this.busy = false;
      this.dispatchEvent(new CustomEvent("alarm-changed"));
      if (this.all) this.#all.again();
    }
  };
}

function summaryOf(alarm: Alarm): AlarmSummary {
  return { ...alarm, entries: alarm.history.length, last: alarm.history.at(-1)! };
}

function inWords(reason: unknown): string {
  return reason instanceof Error ? reason.message : String(reason);
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-alarm-list": AlarmList;
  }
}
