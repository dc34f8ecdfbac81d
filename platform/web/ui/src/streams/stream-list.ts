import { LitElement, css, html, nothing } from "lit";
import { customElement, property, query, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import type { StreamSummary } from "../api/types";
import { formatAgo, formatCount, formatCounted, formatQuantity, parseTime, splitReference } from "../display/format";
import { markOfStream, markPicture, markStyles, streamInWords } from "../status/marks";
import { formatRoute } from "../router";
import type { StreamRates } from "./stream-rates";
import { matchesWords } from "./stream-listing";
import { base } from "../display/styles";

/** Height of an entry: entries far out of view are replaced by empty space. */
const ENTRY_PX = 54;
/** Entries in the document above and below those in view. */
const BEYOND = 30;
/** Up to so many streams are filtered here, also by policy; the server filters by reference alone. */
const MAX_LOCAL = 300;
/** The server filters after this pause in typing. */
const TYPING_MS = 250;

/**
 * The data streams as links, with a filter. Arrow keys move through the list, `/` moves to the filter.
 *
 * Events: `range-changed` with the Range in view, `filter-changed` with the words for the server to filter by.
 */
@customElement("wv-stream-list")
export class StreamList extends LitElement {
  static override styles = [
    base,
    markStyles,
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
      li.stream {
        height: 54px;
        overflow: hidden;
      }
      a {
        display: grid;
        height: 100%;
        grid-template-columns: 14px minmax(40px, 1fr) auto;
        gap: 1px 6px;
        align-items: baseline;
        align-content: center;
        padding: 0 8px;
        border-radius: 9px;
      }
      a:hover {
        background: var(--raised);
      }
      a[aria-current="page"] {
        background: var(--accent-soft);
      }
      .mark {
        align-self: center;
      }
      .state {
        font-weight: 600;
      }
      .state.danger,
      .state.danger-seen {
        color: var(--bad);
      }
      .state.warning,
      .state.warning-seen {
        color: var(--warn);
      }
      .state.fault {
        color: var(--info);
      }
      .name {
        grid-column: 2 / 4;
        overflow: hidden;
        font-weight: 600;
        text-overflow: ellipsis;
        white-space: nowrap;
        /* The end of a long reference tells streams apart. */
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
  /** The number of streams, including those that were not read. */
  @property({ type: Number }) matching = 0;
  @property({ type: Boolean }) loading = false;
  /** Reference of the stream that is shown. */
  @property() chosen = "";
  /** The server's time, ms since the epoch. */
  @property({ type: Number }) now_ms = 0;
  @state() private filter = "";
  /** The first entry in view, and how many fit. */
  @state() private first = 0;
  @state() private room = 20;
  #typing: ReturnType<typeof setTimeout> | undefined;
  #reported = "";
  /** The words that the server filters by. */
  #requested = "";
  /** The chosen stream that was scrolled to. */
  #seen = "";
  @query("input") private input!: HTMLInputElement;
  @query("ul") private list!: HTMLUListElement;

  override connectedCallback(): void {
    super.connectedCallback();
    document.addEventListener("keydown", this.#onDocumentKey);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    document.removeEventListener("keydown", this.#onDocumentKey);
    clearTimeout(this.#typing);
  }

  protected override render() {
    const { first, room } = this;
    const words = this.#words();
    const filtered = words.length > 0 && this.#isLocal();
    const streams = filtered ? this.streams.filter((stream) => matchesWords(stream, words)) : this.streams;
    const total = filtered ? streams.length : Math.max(this.matching, streams.length);
    const begin = Math.max(0, Math.min(first - BEYOND, streams.length - room));
    const end = Math.min(streams.length, first + room + BEYOND);
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
          @input=${this.#onInput}
          @keydown=${this.#onKey}
        />
        ${this.filter ? nothing : html`<kbd aria-hidden="true">/</kbd>`}
      </div>
      <p class="summary">
        <span role="status">
          ${
            this.loading
              ? "Loading\u2026"
              : `${formatCounted(total, "stream")}${words.length ? " found" : ""}`
          }
        </span>
      </p>
      <ul @keydown=${this.#onKey} @scroll=${this.#onScroll}>
        <li aria-hidden="true" style="height: ${begin * ENTRY_PX}px"></li>
        ${repeat(
          streams.slice(begin, end),
          (stream) => stream.reference,
          (stream) => this.#entry(stream),
        )}
        <li aria-hidden="true" style="height: ${(streams.length - end) * ENTRY_PX}px"></li>
        ${
          streams.length < total
            ? html`<li class="nothing">${formatCount(total - streams.length)} more: scroll, or filter.</li>`
            : nothing
        }
        ${
          total === 0 && !this.loading && words.length
            ? html`<li class="nothing">No stream matches. Clear the filter with Esc.</li>`
            : nothing
        }
      </ul>
    `;
  }

  protected override updated(): void {
    this.#reportRange();
    if (this.#typing === undefined && !this.loading && !this.#isLocal() && this.#words().join(" ") !== this.#requested)
      this.#reportFilter();
    if (this.chosen === this.#seen) return;
    const at = this.streams.findIndex(({ reference }) => reference === this.chosen);
    if (at < 0) return;
    this.#seen = this.chosen;
    const top_px = at * ENTRY_PX;
    if (top_px < this.list.scrollTop || top_px + ENTRY_PX > this.list.scrollTop + this.list.clientHeight)
      this.list.scrollTop = Math.max(0, top_px - this.list.clientHeight / 2);
  }

  #onScroll = (): void => {
    this.first = Math.floor(this.list.scrollTop / ENTRY_PX);
  };

  /** Reports the entries in view if they or their number changed. */
  #reportRange(): void {
    this.room = Math.max(1, Math.ceil(this.list.clientHeight / ENTRY_PX) + 1);
    const whole = this.#words().length > 0 && this.#isLocal();
    const first = whole ? 0 : this.first;
    const room = whole ? this.streams.length : this.room;
    const reported = `${first} ${room} ${this.streams.length}`;
    if (reported === this.#reported) return;
    this.#reported = reported;
    this.dispatchEvent(new CustomEvent("range-changed", { detail: { first, last: first + room } }));
  }

  #onInput = (): void => {
    this.filter = this.input.value;
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => this.#reportFilter(), TYPING_MS);
  };

  #reportFilter(): void {
    clearTimeout(this.#typing);
    this.#typing = undefined;
    this.list.scrollTop = 0;
    const words = this.#words().join(" ");
    if (words === this.#requested || this.#isLocal()) return;
    this.#requested = words;
    this.dispatchEvent(new CustomEvent("filter-changed", { detail: words }));
  }

  #words(): string[] {
    return this.filter.split(/\s+/).filter(Boolean);
  }

  #isLocal(): boolean {
    const { length } = this.streams;
    return this.#requested === "" && length >= this.matching && length <= MAX_LOCAL && !this.loading;
  }

  #entry(stream: StreamSummary) {
    const { prefix, leaf } = splitReference(stream.reference);
    const arrived_ms = parseTime(stream.last_arrival);
    const elapsed_ms = arrived_ms === null ? null : this.now_ms - arrived_ms;
    const mark = markOfStream(stream);
    const state = streamInWords(stream);
    const rate = this.rates?.of(stream.reference);
    const events = rate?.events_per_s ? `, ${formatQuantity(rate.events_per_s, "events/s")}` : "";
    return html`<li class="stream">
      <a
        href=${formatRoute({ page: "stream", reference: stream.reference })}
        data-testid="stream"
        data-ref=${stream.reference}
        title="${stream.reference}${events}${state ? `\n${state}` : ""}${stream.behind?.reason ? `\n${stream.behind.reason}` : ""}"
        data-mark=${mark}
        aria-current=${stream.reference === this.chosen ? "page" : "false"}
      >
        ${markPicture(mark)}
        <span class="name"
          ><bdi><span class="prefix">${prefix}</span>${leaf}</bdi></span
        >
        <span class="second"
          >${
            state
              ? html`<span class="state ${mark}">${state}</span>`
              : (stream.policy ?? "no policy")
          }</span
        >
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
      this.#reportFilter();
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
