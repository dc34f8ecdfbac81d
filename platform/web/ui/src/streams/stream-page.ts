import { LitElement, type PropertyValues, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { byUrgency } from "../alarms/alarm-words";
import { ApiError } from "../api/api-error";
import { Poller } from "../api/poller";
import type { AlarmSummary, ArraySummary, Installation, StreamSummary } from "../api/types";
import { sortOutputs } from "../charts/outputs";
import {
  formatCount,
  formatMoment,
  formatQuantity,
  parseTime,
  plural,
  splitReference,
} from "../display/format";
import { base, controls, panel } from "../display/styles";
import { formatRoute } from "../router";
import { api } from "../services";
import { markStyles } from "../status/marks";
import "./stream-download";
import { noticeStyles, streamNotices } from "./stream-notices";
import "./stream-outputs";

const INTERVAL_MS = 2000;
/** Open alarms of the stream that are read, and those that are shown. */
const MAX_READ = 100;
const MAX_ALARMS = 5;

/** One data stream: its facts, what is abnormal, and a live panel for each output. */
@customElement("wv-stream-page")
export class StreamPage extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    markStyles,
    noticeStyles,
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
  /** The open alarms of the stream, the most urgent first. */
  @state() private alarms: readonly AlarmSummary[] = [];
  @state() private arrays: readonly ArraySummary[] = [];
  @state() private downloading = false;

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
    this.#poller.reset();
  }

  /** Descriptions of arrays are read when the list of arrays changes; rows come by the live feed. */
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
          aria-expanded=${this.downloading}
          aria-pressed=${this.downloading}
          ?hidden=${!stream}
          @click=${() => (this.downloading = !this.downloading)}
        >
          Download
        </button>
      </div>
      ${stream ? streamNotices(stream, this.alarms, api.now_ms()) : nothing}
      ${
        stream && this.downloading
          ? html`<wv-stream-download
              .reference=${stream.reference}
              .arrays=${this.arrays.map(({ reference }) => reference)}
              .installation=${this.installation}
            ></wv-stream-download>`
          : nothing
      }
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
      <span><b>${formatCount(stream.events)}</b> ${plural(stream.events, "event")}</span>
      <span>in <b>${formatCount(stream.chunks)}</b> ${plural(stream.chunks, "chunk")}</span>
      ${first_ms === null ? nothing : html`<span>since ${formatMoment(first_ms / 1000)}</span>`}
    </div>`;
  }

  #failure(error: Error) {
    if (error instanceof ApiError && error.status === 404) {
      return html`<p class="panel note" role="status">
        The stream does not exist. Windvane creates it with the first chunk whose tag is ${this.reference} and matches a
        <a class="link" href=${formatRoute({ page: "policies" })}>policy</a>.
      </p>`;
    }
    return html`<p class="panel note" role="alert">${error.message}</p>`;
  }

  #outputs(stream: StreamSummary) {
    if (stream.arrays.length > 0) {
      return html`<wv-stream-outputs .reference=${stream.reference} .arrays=${this.arrays}></wv-stream-outputs>`;
    }
    return html`<p class="panel note">
      This stream has no outputs; its events are archived.
      ${
        stream.policy
          ? html`To compute spectra, features or scores, add steps to the pipeline of the policy
              <a class="link" href=${formatRoute({ page: "policy", reference: stream.policy })}>${stream.policy}</a>.`
          : nothing
      }
    </p>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-stream-page": StreamPage;
  }
}
