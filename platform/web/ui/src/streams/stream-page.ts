import { LitElement, type PropertyValues, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { type AlarmSummary, ApiError, type ArraySummary, type Installation, type StreamSummary } from "../api/api";
import { byUrgency, findingInWords, shownGrade } from "../alarms/alarms";
import { pythonExample, shellWord, windvaneCommand } from "../commands/commands";
import "../commands/copy-block";
import { delayInWords } from "../status/delay";
import {
  formatAgo,
  formatCount,
  formatDate,
  formatQuantity,
  formatZone,
  outputName,
  parseTime,
  splitReference,
} from "../display/format";
import { alarmInWords, markOfAlarm, markPicture, markStyles } from "../status/marks";
import { isSetAside, outputKind, sortOutputs } from "../charts/outputs";
import { Poller } from "../api/poller";
import { formatRoute } from "../router";
import { api } from "../services";
import "../charts/spectrum-panel";
import { base, controls, panel } from "../display/styles";
import "../charts/trend-panel";

const INTERVAL_MS = 2000;
/** Open alarms of the stream that are shown, and failing steps. */
const MAX_ALARMS = 5;
const MAX_READ = 100;
const MAX_FAILING = 10;

/** One data stream: what it is, and a live picture of each of its outputs. */
@customElement("wv-stream-page")
export class StreamPage extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    markStyles,
    css`
      :host {
        display: block;
        padding: var(--gap);
        container-type: inline-size;
      }
      .head {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 4px 16px;
        min-height: 44px;
        margin-bottom: 12px;
      }
      h1 {
        min-width: 0;
        font-size: 20px;
        font-weight: 700;
        letter-spacing: -0.01em;
        overflow-wrap: anywhere;
      }
      h1 .prefix {
        color: var(--muted);
        font-weight: 500;
      }
      .facts {
        display: flex;
        flex-wrap: wrap;
        gap: 2px 16px;
        color: var(--muted);
        font-size: 12.5px;
        font-variant-numeric: tabular-nums;
      }
      .facts b {
        color: var(--text);
        font-weight: 600;
      }
      .spring {
        flex: 1;
      }
      .outputs {
        display: grid;
        gap: var(--gap);
        grid-template-columns: minmax(0, 1fr);
        align-items: start;
      }
      .column {
        display: grid;
        gap: var(--gap);
        min-width: 0;
      }
      .column.trends {
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr));
      }
      .outputs.lone {
        --trend-height: clamp(220px, 52vh, 560px);
      }
      @container (max-width: 820px) {
        .head {
          gap: 6px 10px;
        }
        h1 {
          flex: 1;
        }
        .facts {
          order: 1;
          width: 100%;
        }
        .spring {
          display: none;
        }
      }
      @container (min-width: 1010px) {
        .outputs.both {
          grid-template-columns: minmax(0, 1.65fr) minmax(0, 1fr);
        }
        .outputs.both .trends {
          grid-template-columns: minmax(0, 1fr);
        }
      }
      .take {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr));
        gap: 12px 24px;
        margin-bottom: var(--gap);
        padding: 14px 16px 16px;
      }
      .take h2 {
        margin-bottom: 6px;
        font-size: 13px;
      }
      .take wv-copy + wv-copy {
        margin-top: 8px;
      }
      .take .files {
        display: flex;
        flex-wrap: wrap;
        gap: 6px 14px;
        margin-top: 10px;
        font-size: 12.5px;
      }
      .notice {
        display: grid;
        grid-template-columns: 12px minmax(0, 1fr);
        gap: 2px 8px;
        align-items: baseline;
        margin-bottom: 8px;
        padding: 8px 14px;
        border-color: var(--tone);
        background: var(--soft);
        color: inherit;
        overflow-wrap: anywhere;
      }
      .notice:has(+ :not(.notice)) {
        margin-bottom: var(--gap);
      }
      .notice b {
        color: var(--tone);
      }
      .notice .mark {
        align-self: center;
      }
      .notice.fault {
        --tone: var(--info);
        --soft: var(--info-soft);
      }
      .notice.danger,
      .notice.danger-seen {
        --tone: var(--bad);
        --soft: var(--bad-soft);
      }
      .notice.warning,
      .notice.warning-seen {
        --tone: var(--warn);
        --soft: var(--warn-soft);
      }
      .notice.shelved {
        --tone: var(--muted);
        --soft: var(--surface);
      }
      a.notice:hover b {
        text-decoration: underline;
      }
      .note {
        padding: 36px 24px;
        color: var(--muted);
        text-align: center;
      }
      .back {
        display: none;
      }
      @media (max-width: 760px) {
        .back {
          display: inline-flex;
        }
        h1 {
          font-size: 17px;
        }
      }
    `,
  ];

  @property() reference = "";
  @property({ attribute: false }) installation: Installation | null = null;
  /** The open alarms of the stream, the newest change first. */
  @state() private alarms: readonly AlarmSummary[] = [];
  @state() private arrays: readonly ArraySummary[] = [];
  @state() private taking = false;
  @state() private opened: ReadonlySet<string> = new Set();

  readonly #poller: Poller<StreamSummary> = new Poller<StreamSummary>(this, {
    interval_ms: INTERVAL_MS,
    read: () => api.stream(this.reference),
    onValue: (stream) => {
      void this.#readArrays(stream);
      void this.#readAlarms(stream);
    },
  });

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (!changed.has("reference") || changed.get("reference") === undefined) return;
    this.arrays = [];
    this.alarms = [];
    this.opened = new Set();
    this.#poller.reset();
  }

  /** The arrays' descriptions are read where their list changes; their rows come by the live feed. */
  async #readArrays(stream: StreamSummary): Promise<void> {
    const known = new Set(this.arrays.map((array) => array.reference));
    if (stream.arrays.length === known.size && stream.arrays.every((reference) => known.has(reference)))
      return;
    const answers = await Promise.allSettled(stream.arrays.map((reference) => api.array(reference)));
    if (stream.reference !== this.reference) return;
    this.arrays = sortOutputs(
      answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : [])),
    );
  }

  async #readAlarms({ reference, alarm }: StreamSummary): Promise<void> {
    const alarms = alarm ? await api.alarms("open", MAX_READ, reference).catch(() => this.alarms) : [];
    if (reference === this.reference) this.alarms = byUrgency(alarms).slice(0, MAX_ALARMS);
  }

  protected override render() {
    const stream = this.#poller.value;
    const { error } = this.#poller;
    const { prefix, leaf } = splitReference(this.reference);
    return html`
      <div class="head">
        <a class="button back" href=${formatRoute({ page: "streams" })} aria-label="Back to the streams"
          >‹ Streams</a
        >
        <h1 data-testid="stream-title"><span class="prefix">${prefix}</span>${leaf}</h1>
        ${stream ? this.#facts(stream) : nothing}
        <span class="spring"></span>
        <button
          class="button"
          aria-expanded=${this.taking}
          aria-pressed=${this.taking}
          ?hidden=${!stream}
          @click=${() => (this.taking = !this.taking)}
        >
          Download
        </button>
      </div>
      ${stream ? [this.#openAlarms(stream), this.#late(stream), this.#failing(stream)] : nothing}
      ${stream && this.taking ? this.#takeOut(stream) : nothing}
      ${!stream && error ? this.#failure(error) : nothing} ${stream ? this.#outputs(stream) : nothing}
    `;
  }

  #facts(stream: StreamSummary) {
    const first_ms = parseTime(stream.first_arrival);
    return html`<div class="facts">
      ${
        stream.policy
          ? html`<span
              >policy
              <a class="link" href=${formatRoute({ page: "policy", reference: stream.policy })}
                >${stream.policy}</a
              ></span
            >`
          : nothing
      }
      <span><b data-testid="stream-size">${formatQuantity(stream.size, "B")}</b></span>
      <span><b>${formatCount(stream.events)}</b> ${stream.events === 1 ? "event" : "events"}</span>
      <span>in <b>${formatCount(stream.chunks)}</b> ${stream.chunks === 1 ? "chunk" : "chunks"}</span>
      ${first_ms === null ? nothing : html`<span>since ${formatDate(first_ms / 1000)} ${formatZone(first_ms / 1000)}</span>`}
    </div>`;
  }

  #late(stream: StreamSummary) {
    const words = delayInWords(stream);
    if (words === null) return nothing;
    return html`<p class="panel notice fault" role="status" data-testid="behind">
      ${markPicture("fault")}<span><b>Behind.</b> ${words}</span>
    </p>`;
  }

  #openAlarms({ alarm }: StreamSummary) {
    const more = (alarm?.open ?? 0) - this.alarms.length;
    return html`${repeat(
      this.alarms,
      ({ reference }) => reference,
      (each) => {
        const shown = { grade: shownGrade(each), state: each.state };
        const raised_s = each.raised_ns / 1e9;
        return html`<a
          class="panel notice ${markOfAlarm(shown)}"
          href=${formatRoute({ page: "alarm", reference: each.reference })}
          data-testid="open-alarm"
          >${markPicture(markOfAlarm(shown))}<span
            ><b>${alarmInWords(shown)}.</b> ${each.name} since ${formatDate(raised_s)} ${formatZone(raised_s)}:
            ${findingInWords(each)}.</span
          ></a
        >`;
      },
    )}${
      more > 0 && this.alarms.length
        ? html`<p class="panel notice shelved">
            <span></span><span>${formatCount(more)} more open ${more === 1 ? "alarm" : "alarms"}, see
            <a class="link" href=${formatRoute({ page: "alarms" })}>Alarms</a>.</span>
          </p>`
        : nothing
    }`;
  }

  #failing({ failing }: StreamSummary) {
    return (failing ?? []).slice(0, MAX_FAILING).map(
      ({ step, message, time_ns, times }) =>
        html`<p class="panel notice fault" role="status" data-testid="failing-step">
          ${markPicture("fault")}<span
            ><b>Failing step: ${step}.</b> ${message.replace(/[.]$/, "")}.
            <span class="muted"
              >${formatCount(times)} ${times === 1 ? "time" : "times"}, last ${formatAgo(api.now_ms() - time_ns / 1e6)}.
              Other steps continue. See the
              <a class="link" href=${formatRoute({ page: "refused" })}>dead letters</a>.</span
            ></span
          >
        </p>`,
    );
  }

  #failure(error: Error) {
    if (error instanceof ApiError && error.status === 404) {
      return html`<p class="panel note" role="status">
        There is no data stream of this name yet. It begins with the first chunk that arrives under its tag.
      </p>`;
    }
    return html`<p class="panel note" role="alert">${error.message}</p>`;
  }

  #outputs(stream: StreamSummary) {
    const now = this.arrays.filter((array) => !isSetAside(array.reference));
    const spectra = now.filter((array) => outputKind(array) === "spectrum");
    const others = now.filter((array) => outputKind(array) !== "spectrum");
    const shape = spectra.length && others.length ? "both" : now.length === 1 ? "lone" : "";
    if (stream.arrays.length === 0) {
      return html`<p class="panel note">
        This stream is archived and has no outputs.
        ${
          stream.policy
            ? html`A pipeline in the policy
                <a class="link" href=${formatRoute({ page: "policy", reference: stream.policy })}
                  >${stream.policy}</a
                >
                makes spectra, features and scores of what arrives.`
            : nothing
        }
      </p>`;
    }
    return html`<div class="outputs ${shape}">
      ${
        spectra.length
          ? html`<div class="column">
              ${repeat(
                spectra,
                (array) => array.reference,
                (array) => html`<wv-spectrum-panel .reference=${array.reference}></wv-spectrum-panel>`,
              )}
            </div>`
          : nothing
      }
      ${
        others.length
          ? html`<div class="column trends">
              ${repeat(
                others,
                (array) => array.reference,
                (array) => this.#other(array),
              )}
            </div>`
          : nothing
      }
    </div>`;
  }

  #other(array: ArraySummary) {
    const kind = outputKind(array);
    if (kind === "trend" || this.opened.has(array.reference)) {
      return html`<wv-trend-panel .reference=${array.reference}></wv-trend-panel>`;
    }
    const name = outputName(array.reference);
    return html`<section class="panel">
      <header>
        <h2>${name[0]?.toUpperCase()}${name.slice(1)}</h2>
        <span class="about">${this.#describe(array)}</span>
        <span class="spring"></span>
        ${
          kind === "samples"
            ? html`<button
                class="button"
                @click=${() => (this.opened = new Set([...this.opened, array.reference]))}
              >
                Show signal
              </button>`
            : nothing
        }
      </header>
    </section>`;
  }

  #describe(array: ArraySummary): string {
    const dtype = typeof array.dtype === "string" ? array.dtype.replace(/^[<>|=]/, "") : "records";
    const rate_hz = Number(array.attrs["rate_hz"] ?? NaN);
    return `${dtype}${rate_hz > 0 ? `, ${formatQuantity(rate_hz, "rows/s")}` : ""}`;
  }

  #takeOut(stream: StreamSummary) {
    const arrays = this.arrays.map((array) => array.reference);
    const shown = arrays.find((reference) => !isSetAside(reference));
    const file = stream.reference.replaceAll(/[^\w.-]+/g, "_");
    return html`<section class="panel take" aria-label="Download">
      <div>
        <h2>Command line</h2>
        <wv-copy
          text="${windvaneCommand(this.installation, "cat", stream.reference)} > ${shellWord(file)}"
        ></wv-copy>
        ${
          shown
            ? html`<wv-copy
                text=${windvaneCommand(this.installation, "export", shown, `${outputName(shown)}.npy`)}
              ></wv-copy>`
            : nothing
        }
        <p class="files">
          <a class="link" href=${api.streamDataUrl(stream.reference)} download=${file}>${stream.reference}</a>
          ${arrays.map(
            (reference) =>
              html`<a
                class="link"
                href=${api.arrayFileUrl(reference)}
                download="${reference.replaceAll(/[^\w.-]+/g, "_")}.npy"
                >${outputName(reference)}.npy</a
              >`,
          )}
        </p>
      </div>
      <div>
        <h2>Python</h2>
        <wv-copy label="example" text=${pythonExample(this.installation, stream.reference, shown)}></wv-copy>
      </div>
    </section>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-stream-page": StreamPage;
  }
}
