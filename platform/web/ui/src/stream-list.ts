import { LitElement, css, html, nothing } from "lit";
import { customElement, property, query, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { MAX_LISTED, type StreamSummary } from "./api";
import { formatAgo, formatCount, formatQuantity, parseTime, splitReference } from "./format";
import { formatRoute } from "./router";
import type { StreamRates } from "./stream-rates";
import { base } from "./styles";

/** Entries in the page at once; a filter finds the others. */
const MAX_SHOWN = 300;
const LIVE_MS = 10_000;
const QUIET_MS = 120_000;

/** The data streams, filterable; a link each. Arrow keys walk through them, `/` goes to the filter. */
@customElement("wv-stream-list")
export class StreamList extends LitElement {
  static override styles = [
    base,
    css`
      :host {
        display: flex;
        flex-direction: column;
        min-height: 0;
      }
      .filter {
        position: relative;
        padding: 12px 12px 8px;
      }
      input {
        width: 100%;
        height: 36px;
        padding: 0 34px 0 12px;
        border: 1px solid var(--line);
        border-radius: 9px;
        background: var(--surface);
      }
      input::placeholder {
        color: var(--muted);
        opacity: 1;
      }
      input::-webkit-search-cancel-button {
        display: none;
      }
      kbd {
        position: absolute;
        top: 20px;
        right: 21px;
        padding: 0 6px;
        border: 1px solid var(--line);
        border-radius: 5px;
        color: var(--muted);
        font: 11px/18px var(--mono);
        pointer-events: none;
      }
      @media (pointer: coarse) {
        kbd {
          display: none;
        }
      }
      .summary {
        display: flex;
        justify-content: space-between;
        padding: 0 16px 6px;
        color: var(--muted);
        font-size: 12px;
      }
      ul {
        flex: 1;
        min-height: 0;
        overflow-y: auto;
        padding: 2px 8px 16px;
        scrollbar-width: thin;
        scrollbar-color: var(--line-strong) transparent;
      }
      li {
        content-visibility: auto;
        contain-intrinsic-size: auto 54px;
      }
      a {
        display: grid;
        grid-template-columns: 14px minmax(40px, 1fr) auto;
        gap: 1px 6px;
        align-items: baseline;
        padding: 7px 8px 8px;
        border-radius: 9px;
      }
      a:hover {
        background: var(--raised);
      }
      a[aria-current="page"] {
        background: var(--accent-soft);
      }
      .dot {
        width: 8px;
        height: 8px;
        border-radius: 50%;
        border: 1.5px solid var(--line-strong);
        align-self: center;
      }
      .dot.live {
        border-color: var(--good);
        background: var(--good);
      }
      .dot.quiet {
        border-color: var(--warn);
      }
      .name {
        grid-column: 2 / 4;
        overflow: hidden;
        font-weight: 600;
        text-overflow: ellipsis;
        white-space: nowrap;
        /* Of a long reference the end tells streams apart. */
        direction: rtl;
        text-align: left;
      }
      .name bdi {
        unicode-bidi: isolate;
      }
      .name .prefix {
        color: var(--muted);
        font-weight: 400;
      }
      .second {
        grid-column: 2;
        overflow: hidden;
        color: var(--muted);
        font-size: 12px;
        text-overflow: ellipsis;
        white-space: nowrap;
      }
      .right {
        font-size: 12px;
        text-align: right;
        white-space: nowrap;
      }
      .nothing {
        padding: 24px 16px;
        color: var(--muted);
        text-align: center;
      }
    `,
  ];

  @property({ attribute: false }) streams: readonly StreamSummary[] = [];
  @property({ attribute: false }) rates: StreamRates | null = null;
  /** Reference of the stream that is shown. */
  @property() chosen = "";
  /** The server's time, ms since the epoch. */
  @property({ type: Number }) now_ms = 0;
  @state() private filter = "";
  /** The chosen stream that was scrolled to. */
  #seen = "";
  @query("input") private input!: HTMLInputElement;

  override connectedCallback(): void {
    super.connectedCallback();
    document.addEventListener("keydown", this.#onDocumentKey);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    document.removeEventListener("keydown", this.#onDocumentKey);
  }

  protected override render() {
    const words = this.filter.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.streams.filter(({ reference, policy }) => {
      const text = `${reference} ${policy ?? ""}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const shown = found.slice(0, MAX_SHOWN);
    const chosen = found.find(({ reference }) => reference === this.chosen);
    if (chosen && !shown.includes(chosen)) shown.unshift(chosen);
    const many = this.streams.length >= MAX_LISTED ? "+" : "";
    return html`
      <div class="filter">
        <input
          type="search"
          aria-label="Filter streams"
          placeholder="Filter streams"
          data-testid="filter"
          autocomplete="off"
          spellcheck="false"
          .value=${this.filter}
          @input=${() => (this.filter = this.input.value)}
          @keydown=${this.#onKey}
        />
        ${this.filter ? nothing : html`<kbd aria-hidden="true">/</kbd>`}
      </div>
      <p class="summary">
        <span role="status">
          ${words.length ? `${formatCount(found.length)} of ` : ""}${formatCount(this.streams.length)}${many}
          ${this.streams.length === 1 ? "stream" : "streams"}
        </span>
      </p>
      <ul @keydown=${this.#onKey}>
        ${repeat(
          shown,
          (stream) => stream.reference,
          (stream) => this.#entry(stream),
        )}
        ${
          found.length > shown.length
            ? html`<li class="nothing">
                ${formatCount(found.length - shown.length)} more. Filter to find them.
              </li>`
            : nothing
        }
        ${found.length === 0 && words.length ? html`<li class="nothing">No stream matches.</li>` : nothing}
      </ul>
    `;
  }

  protected override updated(): void {
    if (this.chosen === this.#seen) return;
    const link = this.renderRoot.querySelector('a[aria-current="page"]');
    if (!link) return;
    this.#seen = this.chosen;
    link.scrollIntoView({ block: "nearest" });
  }

  #entry(stream: StreamSummary) {
    const { prefix, leaf } = splitReference(stream.reference);
    const arrived_ms = parseTime(stream.last_arrival);
    const elapsed_ms = arrived_ms === null ? null : this.now_ms - arrived_ms;
    const pulse = elapsed_ms === null || elapsed_ms > QUIET_MS ? "" : elapsed_ms < LIVE_MS ? "live" : "quiet";
    const rate = this.rates?.of(stream.reference);
    const events = rate?.events_per_s ? `, ${formatQuantity(rate.events_per_s, "events/s")}` : "";
    return html`<li>
      <a
        href=${formatRoute({ page: "stream", reference: stream.reference })}
        data-testid="stream"
        data-ref=${stream.reference}
        title="${stream.reference}${events}"
        aria-current=${stream.reference === this.chosen ? "page" : "false"}
      >
        <span class="dot ${pulse}"></span>
        <span class="name"
          ><bdi><span class="prefix">${prefix}</span>${leaf}</bdi></span
        >
        <span class="second">${stream.policy ?? "no policy"}</span>
        <span class="right number">
          ${
            rate?.bytes_per_s
              ? html`${formatQuantity(rate.bytes_per_s, "B/s")} <span class="muted">·</span>`
              : nothing
          }
          <span class="muted">${formatAgo(elapsed_ms)}</span>
        </span>
      </a>
    </li>`;
  }

  #onDocumentKey = (event: KeyboardEvent): void => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.composedPath()[0];
    if (target instanceof HTMLInputElement && !["radio", "checkbox"].includes(target.type)) return;
    event.preventDefault();
    this.input.focus();
    this.input.select();
  };

  #onKey = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && this.filter) {
      this.filter = "";
      event.preventDefault();
      return;
    }
    const links = [...this.renderRoot.querySelectorAll("a")];
    const at = links.indexOf(this.shadowRoot?.activeElement as HTMLAnchorElement);
    if (event.key === "Enter" && at < 0) links[0]?.click();
    const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (goal === undefined || (at < 0 && event.key !== "ArrowDown")) return;
    event.preventDefault();
    (links[goal] ?? (goal < 0 ? this.input : undefined))?.focus();
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-stream-list": StreamList;
  }
}
