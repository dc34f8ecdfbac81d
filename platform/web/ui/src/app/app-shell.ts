import { LitElement, css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { byUrgency } from "../alarms/alarm-words";
import "../alarms/alarms-page";
import { Poller } from "../api/poller";
import type { AlarmSummary, Health, Installation, Policy } from "../api/types";
import "../dead-letters/dead-letters-page";
import { base } from "../display/styles";
import "../policies/policy-page";
import { type Route, formatRoute, parseRoute, redirect } from "../router";
import { api, live } from "../services";
import { healthConditions, headline } from "../status/health";
import "../status/health-banner";
import "../status/status-strip";
import { StreamDirectory } from "../streams/stream-directory";
import "../streams/stream-list";
import type { Range } from "../streams/stream-listing";
import "../streams/stream-page";
import "./app-header";
import "./empty-state";
import "./not-found";
import { takeTokenFromAddress } from "./token-prompt";
import "./token-prompt";

const ALARMS_INTERVAL_MS = 2000;
const HEALTH_INTERVAL_MS = 2000;
/** Most open alarms that are read. */
const MAX_ALARMS = 500;
const NARROW = matchMedia("(max-width: 760px)");

/** The page: header, status, and below them what the address names. */
@customElement("wv-app")
export class AppShell extends LitElement {
  static override styles = [
    base,
    css`
      :host {
        display: grid;
        grid-template-rows: auto auto auto minmax(0, 1fr);
        height: 100vh;
        height: 100dvh;
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
      .select {
        padding: 20vh 24px;
        color: var(--muted);
        text-align: center;
      }
      .outdated {
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
  /** Read only for the first steps of a new installation. */
  @state() private policies: readonly Policy[] = [];
  @state() private installation: Installation | null = null;
  #gave_token = takeTokenFromAddress();

  readonly #streams = new StreamDirectory(this, () => this.#onStreams());

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
    this.#onHash();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    removeEventListener("hashchange", this.#onHash);
    removeEventListener("online", this.#onOnline);
    document.removeEventListener("visibilitychange", this.#onOnline);
    live.stop();
  }

  #onHash = (): void => {
    const address = redirect(location.hash);
    if (address) history.replaceState(history.state, "", address);
    this.route = parseRoute(location.hash);
    this.#openFirst();
  };

  #onOnline = (): void => {
    if (!document.hidden) live.retryNow();
  };

  #onStreams(): void {
    this.unauthorized = false;
    this.#gave_token = false;
    if (this.#streams.empty)
      void api.policies().then(
        (policies) => (this.policies = policies),
        () => {}, // the first step is shown as not done
      );
    this.#openFirst();
  }

  /** On a wide screen, with room next to the list, a stream is open from the start. */
  #openFirst(): void {
    if (this.route.page !== "streams" || NARROW.matches) return;
    const { first } = this.#streams;
    if (first) location.replace(formatRoute({ page: "stream", reference: first.reference }));
  }

  protected override updated(): void {
    document.title = "reference" in this.route ? `${this.route.reference} · Windvane` : "Windvane";
  }

  protected override render() {
    if (this.unauthorized) return html`<wv-token-prompt ?rejected=${this.#gave_token}></wv-token-prompt>`;
    const { page } = this.route;
    const conditions = healthConditions(this.#health.value);
    return html`
      <wv-app-header
        .page=${page}
        .alarms=${this.#alarms.value ?? []}
        .max_alarms=${MAX_ALARMS}
        .problem=${headline(conditions) ?? ""}
      ></wv-app-header>
      <wv-health-banner .conditions=${conditions}></wv-health-banner>
      <wv-status-strip
        @installation=${({ detail }: CustomEvent<Installation>) => (this.installation = detail)}
      ></wv-status-strip>
      ${
        page === "streams" || page === "stream"
          ? this.#streamsPage()
          : html`<div class="content">${this.#outdated()}${this.#page()}</div>`
      }
    `;
  }

  #page() {
    const { route } = this;
    if (route.page === "unknown") return html`<wv-not-found .address=${route.address}></wv-not-found>`;
    if (route.page === "dead-letters") return html`<wv-dead-letters-page></wv-dead-letters-page>`;
    if (route.page === "alarms" || route.page === "alarm") {
      return html`<wv-alarms-page
        .open=${this.#alarms.value}
        .problem=${this.#alarms.error?.message ?? ""}
        .opened=${route.page === "alarm" ? route.reference : ""}
        @alarm-changed=${() => this.#alarms.again()}
      ></wv-alarms-page>`;
    }
    return html`<wv-policy-page
      .reference=${"reference" in route ? route.reference : ""}
      .installation=${this.installation}
    ></wv-policy-page>`;
  }

  #streamsPage() {
    const { entries, empty, matching, rates } = this.#streams;
    const { route } = this;
    if (empty && route.page === "streams") {
      return html`<div class="content">
        ${this.#outdated()}<wv-empty-state
          .policies=${this.policies}
          .installation=${this.installation}
        ></wv-empty-state>
      </div>`;
    }
    const reference = route.page === "stream" ? route.reference : "";
    return html`<div class="split ${reference ? "one" : "list"}">
      <aside aria-label="Data streams">
        <wv-stream-list
          .streams=${entries ?? []}
          .matching=${matching}
          ?loading=${entries === null}
          .rates=${rates}
          .chosen=${reference}
          .now_ms=${api.now_ms()}
          @range-changed=${({ detail }: CustomEvent<Range>) => this.#streams.view(detail)}
          @filter-changed=${({ detail }: CustomEvent<string>) => this.#streams.search(detail)}
        ></wv-stream-list>
      </aside>
      <main class="content">
        ${this.#outdated()}
        ${
          reference
            ? html`<wv-stream-page
                .reference=${reference}
                .installation=${this.installation}
              ></wv-stream-page>`
            : html`<p class="select">${entries === null ? "Loading\u2026" : "Select a stream."}</p>`
        }
      </main>
    </div>`;
  }

  #outdated() {
    const { error } = this.#streams;
    return error
      ? html`<p class="outdated" role="alert">${error.message} The last known data is shown.</p>`
      : nothing;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-app": AppShell;
  }
}
