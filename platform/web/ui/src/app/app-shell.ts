import { LitElement, type TemplateResult, css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import "../alarms/alarm-list";
import { type AlarmCount, byUrgency, countByGrade } from "../alarms/alarms";
import type { AlarmSummary, Health, Installation, Policy, StreamSummary } from "../api/api";
import "../status/connection-badge";
import "./empty-state";
import { parseTime } from "../display/format";
import { headline, troubles } from "../status/health";
import { markPicture, markStyles } from "../status/marks";
import "./not-found";
import { firstToShow } from "../charts/outputs";
import "../policies/policy-page";
import { Poller } from "../api/poller";
import "../dead-letters/refused-page";
import { type Route, formatRoute, parseRoute } from "../router";
import { api, live } from "../services";
import "../status/status-strip";
import "../streams/stream-list";
import "../streams/stream-page";
import { type Range, StreamPages } from "../streams/stream-pages";
import { StreamRates } from "../streams/stream-rates";
import { base } from "../display/styles";
import { takeTokenFromAddress } from "./token-prompt";
import "./token-prompt";
import "../status/trouble-banner";

const STREAMS_INTERVAL_MS = 2000;
const ALARMS_INTERVAL_MS = 2000;
const HEALTH_INTERVAL_MS = 2000;
/** Open alarms that are taken in. */
const MAX_ALARMS = 500;
/** So many entries before the end of what is known, the next page is read. */
const ROWS_AHEAD = 40;
/** A stream that arrived so recently is a good one to begin with. */
const RECENT_MS = 10_000;
const NARROW = matchMedia("(max-width: 760px)");

/** The page: header, status, and below them what the address names. */
@customElement("wv-app")
export class AppShell extends LitElement {
  static override styles = [
    base,
    markStyles,
    css`
      :host {
        display: grid;
        grid-template-rows: auto auto auto minmax(0, 1fr);
        height: 100vh;
        height: 100dvh;
      }
      .top {
        display: flex;
        align-items: center;
        gap: 8px 28px;
        height: 56px;
        padding: 0 16px;
        border-bottom: 1px solid var(--line);
        background: var(--surface);
      }
      .brand {
        display: inline-flex;
        align-items: center;
        gap: 10px;
        font-size: 17px;
        font-weight: 700;
        letter-spacing: -0.015em;
      }
      .brand svg {
        width: 26px;
        height: 26px;
        color: var(--accent);
      }
      .tabs {
        display: flex;
        align-self: stretch;
        gap: 4px;
      }
      .tabs a {
        display: grid;
        place-items: center;
        padding: 0 12px;
        border-bottom: 2px solid transparent;
        border-top: 2px solid transparent;
        color: var(--muted);
        font-weight: 550;
      }
      .counts {
        display: inline-flex;
        gap: 8px;
        margin-left: 8px;
        vertical-align: -1px;
      }
      .count {
        display: inline-flex;
        align-items: center;
        gap: 3px;
        color: var(--warn);
        font-size: 12px;
        font-weight: 650;
        font-variant-numeric: tabular-nums;
      }
      .count.grade-2 {
        color: var(--bad);
      }
      .tabs a:hover {
        color: var(--text);
      }
      .tabs a[aria-current="page"] {
        border-bottom-color: var(--accent);
        color: var(--text);
      }
      .tabs a:focus-visible {
        outline-offset: -4px;
      }
      wv-connection {
        margin-left: auto;
      }
      .content {
        position: relative;
        min-height: 0;
        overflow-y: auto;
        scrollbar-width: thin;
        scrollbar-color: var(--line-strong) transparent;
      }
      .split {
        display: grid;
        grid-template-columns: clamp(250px, 21vw, 340px) minmax(0, 1fr);
        min-height: 0;
      }
      .split > aside {
        display: flex;
        min-height: 0;
        border-right: 1px solid var(--line);
        background: color-mix(in srgb, var(--surface) 55%, var(--bg));
      }
      wv-stream-list {
        flex: 1;
        min-width: 0;
      }
      .choose {
        padding: 20vh 24px;
        color: var(--muted);
        text-align: center;
      }
      .trouble {
        position: fixed;
        z-index: 4;
        bottom: 20px;
        left: 50%;
        max-width: calc(100vw - 24px);
        transform: translateX(-50%);
        padding: 10px 16px;
        border: 1px solid var(--warn);
        border-radius: 10px;
        background: var(--warn-soft);
        color: var(--warn);
      }
      @media (max-width: 760px) {
        .top {
          gap: 4px;
          height: 52px;
          padding: 0 10px;
        }
        .brand span {
          position: absolute;
          width: 1px;
          height: 1px;
          overflow: hidden;
          clip-path: inset(50%);
        }
        .tabs {
          gap: 0;
        }
        .tabs a {
          padding: 0 7px;
          font-size: 13px;
        }
        .counts {
          gap: 4px;
          margin-left: 4px;
        }
        .count {
          gap: 2px;
          font-size: 11.5px;
        }
        .split {
          grid-template-columns: minmax(0, 1fr);
        }
        .split > aside {
          border-right: 0;
        }
        .split.one > aside,
        .split.list > .content {
          display: none;
        }
      }
    `,
  ];

  @state() private route: Route = parseRoute(location.hash);
  @state() private unauthorized = false;
  @state() private policies: readonly Policy[] = [];
  @state() private installation: Installation | null = null;
  readonly #rates = new StreamRates();
  #gave_token = takeTokenFromAddress();
  readonly #pages = new StreamPages((after, limit, words) => api.streams(after, limit, words));
  /** What of the list is seen: so much of it is read again and again. */
  #range: Range = { first: 0, last: 0 };
  @state() private filter = "";
  readonly #poller: Poller<readonly StreamSummary[]> = new Poller<readonly StreamSummary[]>(this, {
    interval_ms: STREAMS_INTERVAL_MS,
    read: () => this.#pages.refresh(this.#range),
    onValue: (streams) => this.#onStreams(streams),
  });

  readonly #health: Poller<Health> = new Poller<Health>(this, {
    interval_ms: HEALTH_INTERVAL_MS,
    read: () => api.health(),
  });

  readonly #alarms: Poller<AlarmSummary[]> = new Poller<AlarmSummary[]>(this, {
    interval_ms: ALARMS_INTERVAL_MS,
    read: async () => byUrgency(await api.alarms("open", MAX_ALARMS)),
  });

  override connectedCallback(): void {
    super.connectedCallback();
    api.onUnauthorized = () => (this.unauthorized = true);
    addEventListener("hashchange", this.#onHash);
    addEventListener("online", this.#onOnline);
    document.addEventListener("visibilitychange", this.#onOnline);
    live.start();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    removeEventListener("hashchange", this.#onHash);
    removeEventListener("online", this.#onOnline);
    document.removeEventListener("visibilitychange", this.#onOnline);
    live.stop();
  }

  #onHash = (): void => {
    this.route = parseRoute(location.hash);
    this.#chooseFirst();
  };

  #onOnline = (): void => {
    if (!document.hidden) live.retryNow();
  };

  #onStreams(streams: readonly StreamSummary[]): void {
    this.unauthorized = false;
    this.#gave_token = false;
    this.#rates.update(streams, performance.now());
    if (streams.length === 0 && !this.filter)
      void api.policies().then(
        (policies) => (this.policies = policies),
        () => {},
      );
    this.#chooseFirst();
  }

  /** Where there is room beside the list it opens a stream by itself: one that is alive, if there is one, and has much to show. */
  #chooseFirst(): void {
    const streams = this.filter ? null : this.#pages.entries;
    if (this.route.page !== "streams" || NARROW.matches || !streams?.length) return;
    const now_ms = api.now_ms();
    const first = firstToShow(
      streams,
      (stream) => now_ms - (parseTime(stream.last_arrival) ?? 0) < RECENT_MS,
    );
    location.replace(formatRoute({ page: "stream", reference: first.reference }));
  }

  protected override updated(): void {
    document.title = "reference" in this.route ? `${this.route.reference} · Windvane` : "Windvane";
  }

  protected override render() {
    if (this.unauthorized) return html`<wv-token-prompt ?rejected=${this.#gave_token}></wv-token-prompt>`;
    const { page } = this.route;
    const onStreams = page === "streams" || page === "stream";
    const found = troubles(this.#health.value);
    return html`
      <header class="top">
        <a class="brand" href="#/streams" aria-label="Windvane, home">${MARK}<span>Windvane</span></a>
        <nav class="tabs" aria-label="Pages">
          ${this.#tab("#/streams", "Streams", onStreams)}
          ${this.#tab("#/alarms", "Alarms", page === "alarms" || page === "alarm", this.#alarmCount())}
          ${this.#tab("#/policies", "Policies", page === "policies" || page === "policy")}
          ${this.#tab("#/refused", "Refused", page === "refused")}
        </nav>
        <wv-connection .trouble=${headline(found) ?? ""}></wv-connection>
      </header>
      <wv-trouble .troubles=${found}></wv-trouble>
      <wv-status-strip @installation=${this.#onInstallation}></wv-status-strip>
      ${onStreams ? this.#streams() : html`<div class="content">${this.#trouble()}${this.#page()}</div>`}
    `;
  }

  #tab(address: string, text: string, current: boolean, count: unknown = nothing): TemplateResult {
    return html`<a href=${address} aria-current=${current ? "page" : "false"}><span>${text}${count}</span></a>`;
  }

  /** How many alarms are open, by grade; outlined once all of them are acknowledged. */
  #alarmCount() {
    const alarms = this.#alarms.value ?? [];
    const counts = countByGrade(alarms);
    if (counts.length === 0) return nothing;
    const more = alarms.length >= MAX_ALARMS;
    return html`<span class="counts" data-testid="alarm-count">${counts.map((each) => countPicture(each, more))}</span>`;
  }

  #onInstallation = ({ detail }: CustomEvent<Installation>): void => {
    this.installation = detail;
  };

  #page() {
    const { route } = this;
    if (route.page === "unknown") return html`<wv-not-found .address=${route.address}></wv-not-found>`;
    if (route.page === "refused") return html`<wv-refused-page></wv-refused-page>`;
    if (route.page === "alarms" || route.page === "alarm") {
      return html`<wv-alarm-list
        .open=${this.#alarms.value}
        .problem=${this.#alarms.error?.message ?? ""}
        .opened=${route.page === "alarm" ? route.reference : ""}
        @alarm-changed=${() => this.#alarms.again()}
      ></wv-alarm-list>`;
    }
    return html`<wv-policy-page
      .reference=${"reference" in route ? route.reference : ""}
      .installation=${this.installation}
    ></wv-policy-page>`;
  }

  #streams() {
    const streams = this.#pages.entries;
    const { route } = this;
    if (streams?.length === 0 && !this.filter && route.page === "streams") {
      return html`<div class="content">
        ${this.#trouble()}<wv-empty-state
          .policies=${this.policies}
          .installation=${this.installation}
        ></wv-empty-state>
      </div>`;
    }
    const reference = route.page === "stream" ? route.reference : "";
    return html`<div class="split ${reference ? "one" : "list"}">
      <aside aria-label="Data streams">
        <wv-stream-list
          .streams=${streams ?? []}
          .matching=${this.#pages.matching}
          ?loading=${streams === null}
          .rates=${this.#rates}
          .chosen=${reference}
          .now_ms=${api.now_ms()}
          @range-changed=${this.#onRange}
          @filter-changed=${this.#onFilter}
        ></wv-stream-list>
      </aside>
      <main class="content">
        ${this.#trouble()}
        ${
          reference
            ? html`<wv-stream-page
                .reference=${reference}
                .installation=${this.installation}
              ></wv-stream-page>`
            : html`<p class="choose">${streams === null ? "Loading\u2026" : "Choose a stream."}</p>`
        }
      </main>
    </div>`;
  }

  #onRange = ({ detail }: CustomEvent<Range>): void => {
    this.#range = detail;
    const known = this.#pages.entries?.length ?? 0;
    if (detail.last + ROWS_AHEAD < known) return;
    void this.#pages.readMore().then(
      () => this.requestUpdate(),
      () => {}, // the next poll says what is wrong
    );
  };

  #onFilter = ({ detail }: CustomEvent<string>): void => {
    this.filter = detail;
    if (!this.#pages.search(detail)) return;
    this.#range = { first: 0, last: 0 };
    this.#poller.again();
  };

  #trouble() {
    const { error } = this.#poller;
    return error
      ? html`<p class="trouble" role="alert">${error.message} What is shown is the last that was known.</p>`
      : nothing;
  }
}

function countPicture({ grade, count, raised }: AlarmCount, more: boolean): TemplateResult {
  const name = grade === 2 ? "danger" : "warning";
  const words = `${name}, ${raised ? `${raised} not acknowledged` : "all acknowledged"}`;
  return html`<span class="count grade-${grade}" title="${count} ${words}"
    >${markPicture(raised ? name : `${name}-seen`, words)}${count}${more ? "+" : ""}</span
  >`;
}

const MARK = html`<svg viewBox="0 0 32 32" aria-hidden="true">
  <g fill="none" stroke="currentColor" stroke-width="3" stroke-linecap="round" stroke-linejoin="round">
    <path d="M3 11.5h16.5a4.5 4.5 0 1 0-4.3-5.8" />
    <path d="M3 18h22a4.2 4.2 0 1 1-4 5.4" />
    <path d="M3 24.5h9.5" />
  </g>
</svg>`;

declare global {
  interface HTMLElementTagNameMap {
    "wv-app": AppShell;
  }
}
