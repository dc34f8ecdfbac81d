import { LitElement, css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import type { DeadLetter, DeadLetterSummary, DeadLetterTotals } from "../api/api";
import { formatAgo, formatCount, formatQuantity } from "../display/format";
import { Poller } from "../api/poller";
import { formatRoute } from "../router";
import { api } from "../services";
import { base, controls, panel } from "../display/styles";

const INTERVAL_MS = 3000;
/** Newest letters that are shown. */
const MAX_LETTERS = 200;

interface Listed {
  letters: DeadLetterSummary[];
  totals: DeadLetterTotals;
}

/** What was refused, and why; decoded on demand, to be sent again or dropped. */
@customElement("wv-refused-page")
export class RefusedPage extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    css`
      :host {
        display: block;
        width: min(1180px, 100%);
        margin: 0 auto;
        padding: calc(var(--gap) * 1.5) var(--gap) 40px;
      }
      h1 {
        margin-bottom: 4px;
        font-size: 20px;
      }
      .lead {
        max-width: 70ch;
        margin-bottom: 20px;
        color: var(--muted);
      }
      .panel {
        overflow-x: auto;
      }
      table {
        width: 100%;
        border-collapse: collapse;
      }
      th,
      td {
        padding: 10px 14px;
        text-align: left;
        vertical-align: top;
      }
      th {
        color: var(--muted);
        font-size: 12px;
        font-weight: 500;
        white-space: nowrap;
      }
      tr + tr td,
      thead + tbody td {
        border-top: 1px solid var(--line);
      }
      .nowrap {
        white-space: nowrap;
        font-variant-numeric: tabular-nums;
      }
      .reason {
        min-width: 260px;
        overflow-wrap: anywhere;
      }
      .tag {
        min-width: 120px;
        overflow-wrap: anywhere;
        font-weight: 600;
      }
      .actions {
        display: flex;
        gap: 6px;
        justify-content: flex-end;
      }
      .opened td {
        border-top: 0 !important;
        padding-top: 0;
      }
      pre {
        max-height: 360px;
        margin: 0;
        padding: 10px 12px;
        overflow: auto;
        border-radius: 8px;
        background: var(--raised);
        font-family: var(--mono);
        font-size: 12px;
        line-height: 1.5;
        white-space: pre-wrap;
        overflow-wrap: anywhere;
      }
      pre + pre,
      .obstacle {
        margin-top: 8px;
      }
      .problem {
        margin: 0 0 12px;
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
      /* A phone: each row is a card, the tag first. */
      @media (max-width: 600px) {
        table,
        tbody {
          display: block;
        }
        thead {
          position: absolute;
          width: 1px;
          height: 1px;
          overflow: hidden;
          clip-path: inset(50%);
        }
        tr {
          display: flex;
          flex-wrap: wrap;
          gap: 4px 14px;
          padding: 12px 14px;
        }
        tbody tr + tr {
          border-top: 1px solid var(--line);
        }
        td,
        tr + tr td,
        thead + tbody td {
          min-width: 0;
          padding: 0;
          border-top: 0;
          overflow-wrap: anywhere;
        }
        .tag {
          order: -2;
          flex-basis: 100%;
        }
        .reason {
          order: -1;
          flex-basis: 100%;
          margin-bottom: 2px;
        }
        td:nth-child(4)::before {
          content: "from ";
        }
        td:has(.actions),
        .opened td {
          flex-basis: 100%;
        }
        .actions {
          justify-content: flex-start;
          margin-top: 4px;
        }
        .opened {
          padding-top: 0;
        }
        td:nth-child(6)::before {
          content: "times ";
          color: var(--muted);
        }
      }
    `,
  ];

  /** The letter that is shown opened, once it has been read. */
  @state() private opened: DeadLetter | null = null;
  /** Letters that something is being done with. */
  @state() private busy: ReadonlySet<number> = new Set();
  @state() private problem = "";
  /** The letter whose drop waits to be confirmed. */
  @state() private dropping: number | null = null;

  readonly #poller: Poller<Listed> = new Poller<Listed>(this, {
    interval_ms: INTERVAL_MS,
    read: async () => {
      const [letters, status] = await Promise.all([api.deadLetters(MAX_LETTERS), api.status()]);
      return { letters, totals: status.dead_letters };
    },
  });

  protected override render() {
    const listed = this.#poller.value;
    return html`
      <h1>Refused</h1>
      <p class="lead">
        What no policy allows, is not well-formed or makes a step fail is kept here with the reason, the
        newest first. The oldest leave when the space for it is used up${
          listed ? html`: <span data-testid="refused-totals">${totalsInWords(listed.totals)}</span>` : nothing
        }.
      </p>
      ${this.problem ? html`<p class="problem" role="alert">${this.problem}</p>` : nothing}
      <section class="panel" data-testid="refused-list">
        ${
          listed === null
            ? html`<p class="note" role="status">${this.#poller.error?.message ?? "Loading\u2026"}</p>`
            : listed.letters.length === 0
              ? html`<p class="note">Nothing was refused.</p>`
              : this.#table(listed.letters)
        }
      </section>
    `;
  }

  #table(letters: readonly DeadLetterSummary[]) {
    return html`<table>
      <thead>
        <tr>
          <th scope="col">Last</th>
          <th scope="col">Tag</th>
          <th scope="col">Reason</th>
          <th scope="col">Sender</th>
          <th scope="col">Size</th>
          <th scope="col">Times</th>
          <th scope="col"><span class="visually-hidden">What to do</span></th>
        </tr>
      </thead>
      <tbody>
        ${repeat(
          letters,
          ({ id }) => id,
          (letter) => this.#row(letter),
        )}
      </tbody>
    </table>`;
  }

  #row(letter: DeadLetterSummary) {
    const opened = this.opened?.id === letter.id ? this.opened : null;
    const busy = this.busy.has(letter.id);
    return html`<tr>
        <td class="nowrap">${formatAgo(api.now_ms() - (letter.last_time_ns ?? letter.time_ns) / 1e6)}</td>
        <td class="tag">
          ${letter.tag || "\u2013"}
          ${
            letter.policy
              ? html`<br /><a
                    class="link"
                    href=${formatRoute({ page: "policy", reference: letter.policy })}
                    >${letter.policy}</a
                  >`
              : nothing
          }
        </td>
        <td class="reason">${letter.reason} <span class="chip">${letter.code}</span></td>
        <td class="nowrap muted">${letter.sender}</td>
        <td class="nowrap">${formatQuantity(letter.size, "B")}</td>
        <td class="nowrap">${formatCount(letter.times)}</td>
        <td>
          <div class="actions">
            <button
              class="button"
              type="button"
              aria-expanded=${opened ? "true" : "false"}
              @click=${() => void this.#toggle(letter.id)}
            >
              ${opened ? "Hide" : "Show"}
            </button>
            ${
              letter.replayable
                ? html`<button
                    class="button"
                    type="button"
                    ?disabled=${busy}
                    title="Send it through the policies as they are now"
                    @click=${() => void this.#act(letter.id, () => api.replayDeadLetter(letter.id))}
                  >
                    Replay
                  </button>`
                : nothing
            }
            <button
              class="button"
              type="button"
              ?disabled=${busy}
              title="Remove it, for good"
              @click=${() => this.#drop(letter.id)}
              @blur=${() => (this.dropping = null)}
            >
              ${this.dropping === letter.id ? "For good?" : "Drop"}
            </button>
          </div>
        </td>
      </tr>
      ${opened ? this.#content(opened) : nothing}`;
  }

  #content(letter: DeadLetter) {
    return html`<tr class="opened">
      <td colspan="7">
        <pre data-testid="refused-content">${letter.decoded.join("\n")}</pre>
        ${letter.detail ? html`<pre>${letter.detail}</pre>` : nothing}
        ${
          letter.obstacle
            ? html`<p class="obstacle muted">It cannot be sent again: ${letter.obstacle}.</p>`
            : nothing
        }
      </td>
    </tr>`;
  }

  async #toggle(id: number): Promise<void> {
    if (this.opened?.id === id) {
      this.opened = null;
      return;
    }
    try {
      this.opened = await api.deadLetter(id);
      this.problem = "";
    } catch (reason) {
      this.problem = inWords(reason);
    }
  }

  /** What is dropped is gone: the first click asks, the second does it. */
  #drop(id: number): void {
    if (this.dropping === id) {
      this.dropping = null;
      void this.#act(id, () => api.dropDeadLetter(id));
    } else {
      this.dropping = id;
    }
  }

  /** One thing at a time with one letter; the list is read again when it is done. */
  async #act(id: number, action: () => Promise<void>): Promise<void> {
    if (this.busy.has(id)) return;
    this.busy = new Set([...this.busy, id]);
    try {
      await action();
      this.problem = "";
      if (this.opened?.id === id) this.opened = null;
    } catch (reason) {
      this.problem = inWords(reason);
    } finally {
      this.busy = new Set([...this.busy].filter((other) => other !== id));
      this.#poller.again();
    }
  }
}

function inWords(reason: unknown): string {
  return reason instanceof Error ? reason.message : String(reason);
}

/** `12 kept, 3.40 MB of 268 MB; 7 had to leave`. */
export function totalsInWords(totals: DeadLetterTotals): string {
  const kept = `${formatCount(totals.count)} kept, ${formatQuantity(totals.bytes, "B")}`;
  const left = totals.evicted ? `; ${formatCount(totals.evicted)} had to leave so far` : "";
  return `${kept} of ${formatQuantity(totals.max_bytes, "B")}${left}`;
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-refused-page": RefusedPage;
  }
}
