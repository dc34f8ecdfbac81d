import { LitElement, css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import type { Installation, Status, StepFailure } from "../api/types";
import { stepFailures } from "./failures";
import { formatAgo, formatCount, formatQuantity, plural } from "../display/format";
import { Poller } from "../api/poller";
import { formatRoute } from "../router";
import { api } from "../services";
import { base } from "../display/styles";
import { MAX_SAMPLES, ThroughputMeter } from "./throughput";

const INTERVAL_MS = 1000;
/** More waiting chunks than this are marked. */
const LONG_LAG_CHUNKS = 500;

const REJECTED_TITLE =
  "Chunks that the gateway has rejected since it started, each resend counted: no policy allows them, or they are " +
  "malformed. Dead letters lists each kept chunk once.";

/**
 * The status of the installation: throughput, lag, rejected chunks, failing steps.
 *
 * Event: `installation` with the Installation that answers, when it changes.
 */
@customElement("wv-status-strip")
export class StatusStrip extends LitElement {
  static override styles = [
    base,
    css`
      :host {
        display: block;
        position: relative;
      }
      dl {
        display: grid;
        grid-template-columns: minmax(190px, 1.5fr) minmax(190px, 1.5fr) repeat(3, minmax(110px, 1fr));
        border-bottom: 1px solid var(--line);
        background: var(--surface);
      }
      .cell {
        position: relative;
        display: grid;
        grid-template-columns: auto 1fr;
        align-items: center;
        min-width: 0;
        height: 58px;
        padding: 0 16px;
        border-left: 1px solid var(--line);
      }
      .cell:first-child {
        border-left: 0;
      }
      dt {
        grid-column: 1;
        align-self: end;
        color: var(--muted);
        font-size: 12px;
        line-height: 16px;
        white-space: nowrap;
      }
      dd {
        grid-column: 1;
        align-self: start;
        min-width: 84px;
        font-size: 18px;
        font-weight: 650;
        line-height: 24px;
        white-space: nowrap;
        font-variant-numeric: tabular-nums;
      }
      svg {
        grid-area: 1 / 2 / 3 / 3;
        justify-self: end;
        width: min(100%, 132px);
        height: 34px;
        overflow: visible;
      }
      path.line {
        fill: none;
        stroke: var(--accent);
        stroke-width: 1.5;
        vector-effect: non-scaling-stroke;
        stroke-linejoin: round;
      }
      path.base {
        stroke: var(--line-strong);
        stroke-width: 1;
        vector-effect: non-scaling-stroke;
      }
      path.area {
        fill: var(--accent);
        opacity: 0.12;
      }
      .warn dd {
        color: var(--warn);
      }
      .bad dd {
        color: var(--bad);
      }
      .absent {
        color: var(--muted);
        font-size: 14px;
        font-weight: 500;
      }
      button {
        padding: 0;
        border: 0;
        background: none;
        font: inherit;
        color: inherit;
        cursor: pointer;
        text-decoration: underline dotted;
        text-underline-offset: 4px;
      }
      dd a:hover {
        text-decoration: underline;
      }
      .failures {
        position: absolute;
        z-index: 5;
        top: 100%;
        right: 12px;
        width: min(560px, calc(100% - 24px));
        max-height: 50vh;
        overflow: auto;
        margin-top: 6px;
        padding: 8px 16px;
        border: 1px solid var(--line-strong);
        border-radius: var(--radius);
        background: var(--surface);
        box-shadow: 0 10px 40px rgb(0 0 0 / 30%);
      }
      .failures li {
        padding: 8px 0;
        border-top: 1px solid var(--line);
      }
      .failures li:first-child {
        border-top: 0;
      }
      .failures code {
        display: block;
        margin-top: 2px;
        white-space: pre-wrap;
        overflow-wrap: anywhere;
      }
      @media (max-width: 900px) {
        dl {
          grid-template-columns: repeat(6, 1fr);
        }
        .cell {
          grid-column: span 2;
          height: 50px;
          padding: 0 12px;
        }
        .cell:nth-child(-n + 2) {
          grid-column: span 3;
        }
        .cell:nth-child(n + 3) {
          border-top: 1px solid var(--line);
        }
        .cell:nth-child(3) {
          border-left: 0;
        }
        dt {
          overflow: hidden;
          text-overflow: ellipsis;
        }
        .since {
          display: none;
        }
        dd {
          min-width: 70px;
          font-size: 15px;
          line-height: 20px;
        }
        svg {
          width: calc(100% - 8px);
          height: 26px;
        }
      }
    `,
  ];

  @state() private open = false;
  #reported = "";
  readonly #meter = new ThroughputMeter();
  readonly #poller: Poller<Status> = new Poller<Status>(this, {
    interval_ms: INTERVAL_MS,
    read: () => api.status(),
    onValue: ({ gateway, installation }) => {
      if (gateway) this.#meter.add(gateway);
      this.#reportInstallation(installation);
    },
  });

  protected override render() {
    const status = this.#poller.value;
    const gateway = status?.gateway ?? null;
    const worker = status?.worker ?? null;
    const { failing, recovered } = stepFailures(worker?.failures ?? []);
    const failures = [...failing, ...recovered];
    const lag = worker?.lag_messages ?? 0;
    const latest = gateway ? this.#meter.latest : null;
    const absent = (tier: string) =>
      html`<span class="absent" title="The ${tier} does not answer">${status ? "no answer" : "\u2013"}</span>`;
    return html`
      <dl data-testid="status" aria-label="Status">
        <div class="cell">
          <dt>Events</dt>
          <dd data-testid="events-per-s">
            ${gateway ? formatQuantity(latest?.events_per_s ?? 0, "/s") : absent("gateway")}
          </dd>
          ${this.#chart((sample) => sample.events_per_s)}
        </div>
        <div class="cell">
          <dt>Throughput</dt>
          <dd data-testid="bytes-per-s">
            ${gateway ? formatQuantity(latest?.bytes_per_s ?? 0, "B/s") : absent("gateway")}
          </dd>
          ${this.#chart((sample) => sample.bytes_per_s)}
        </div>
        <div class="cell ${lag > LONG_LAG_CHUNKS ? "warn" : ""}">
          <dt>Lag</dt>
          <dd data-testid="lag" title="Chunks that were received and are not processed">
            ${worker ? `${formatCount(lag)}\u202f${plural(lag, "chunk")}` : absent("worker")}
          </dd>
        </div>
        <div class="cell ${gateway?.refused_total ? "warn" : ""}">
          <dt>Rejected<span class="since"> since start</span></dt>
          <dd data-testid="rejected" title=${REJECTED_TITLE}>
            ${
              gateway
                ? html`<a href=${formatRoute({ page: "dead-letters" })}>${formatCount(gateway.refused_total)}</a>`
                : absent("gateway")
            }
          </dd>
        </div>
        <div class="cell ${failing.length ? "bad" : ""}">
          <dt>Failing steps</dt>
          <dd data-testid="failing">
            ${
              failures.length
                ? html`<button @click=${() => (this.open = !this.open)} aria-expanded=${this.open}>
                    ${failing.length ? formatCount(failing.length) : `${formatCount(recovered.length)} recovered`}
                  </button>`
                : worker
                  ? "0"
                  : absent("worker")
            }
          </dd>
        </div>
      </dl>
      ${this.open && failures.length ? this.#failures(failures) : nothing}
    `;
  }

  #reportInstallation(installation: Installation | undefined): void {
    const reported = JSON.stringify(installation);
    if (!installation || reported === this.#reported) return;
    this.#reported = reported;
    this.dispatchEvent(new CustomEvent("installation", { detail: installation }));
  }

  #failures(failures: readonly StepFailure[]) {
    return html`<ul
      class="failures"
      aria-label="Failing steps"
      @keydown=${(event: KeyboardEvent) => event.key === "Escape" && (this.open = false)}
    >
      ${failures.map(
        ({ stream, step, message, time_ns, times, recovered_ns }) =>
          html`<li>
            <a
              class="link"
              href=${formatRoute({ page: "stream", reference: stream })}
              @click=${() => (this.open = false)}
              >${stream}</a
            >
            · ${step}
            <span class="muted"
              >${formatAgo(api.now_ms() - time_ns / 1e6)}${(times ?? 1) > 1 ? `, ${formatCount(times)} times` : ""}${
                recovered_ns ? ", recovered since" : ""
              }</span
            >
            <code>${message}</code>
          </li>`,
      )}
    </ul>`;
  }

  #chart(value: (sample: { events_per_s: number; bytes_per_s: number }) => number) {
    const values = this.#meter.samples.map(value);
    if (values.length === 0) return nothing;
    const highest = Math.max(...values, 1e-9);
    const first = MAX_SAMPLES - values.length;
    const points = values.map((each, index) => `${first + index},${(30 - (each / highest) * 28).toFixed(2)}`);
    return html`<svg viewBox="0 0 ${MAX_SAMPLES - 1} 30" preserveAspectRatio="none" aria-hidden="true">
      <path class="base" d="M0,30H${MAX_SAMPLES - 1}" />
      <path class="area" d="M${first},30L${points.join("L")}L${MAX_SAMPLES - 1},30Z" />
      <path class="line" d="M${points.join("L")}" />
    </svg>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-status-strip": StatusStrip;
  }
}
