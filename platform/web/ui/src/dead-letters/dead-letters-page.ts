import { LitElement, css, html, nothing } from "lit";
import { customElement, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { errorText } from "../api/api-error";
import { Poller } from "../api/poller";
import type { DeadLetter, DeadLetterSummary, DeadLetterTotals } from "../api/types";
import { formatAgo, formatCount, formatQuantity } from "../display/format";
import { base, controls, page, panel } from "../display/styles";
import { formatRoute } from "../router";
import { api } from "../services";

const INTERVAL_MS = 3000;
/** The newest dead letters are shown, so many of them. */
const MAX_LETTERS = 200;

interface Listing {
  letters: DeadLetterSummary[];
  totals: DeadLetterTotals;
}

/** The dead letters with their reasons; decoded on demand, to be replayed or discarded. */
@customElement("wv-dead-letters-page")
export class DeadLettersPage extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    page,
    css`
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

  /** The letter whose content is shown. */
  @state() private opened: DeadLetter | null = null;
  /** IDs of letters whose action is not answered. */
  @state() private busy: ReadonlySet<number> = new Set();
  @state() private problem = "";
  /** ID of the letter whose discard is to be confirmed. */
  @state() private discarding: number | null = null;

  readonly #poller: Poller<Listing> = new Poller<Listing>(this, {
    interval_ms: INTERVAL_MS,
    read: async () => {
      const [letters, status] = await Promise.all([api.deadLetters(MAX_LETTERS), api.status()]);
      return { letters, totals: status.dead_letters };
    },
  });

  protected override render() {
    const totals = this.#poller.value?.totals;
    return html`
      <h1>Dead letters</h1>
      <p class="lead">
        Windvane keeps the input that it rejects, with the reason: input that no policy allows, that is malformed, or
        that makes a step fail. When the space is used up, new letters replace the oldest${
          totals ? html`: <span data-testid="dead-letter-totals">${totalsInWords(totals)}</span>` : nothing
        }.
      </p>
      ${this.problem ? html`<p class="problem" role="alert">${this.problem}</p>` : nothing}
      <div data-testid="dead-letters">
        ${this.#poller.render(({ letters }) =>
          letters.length
            ? html`<section class="panel">${this.#table(letters)}</section>`
            : html`<p class="panel note">No dead letters: nothing was rejected.</p>`,
        )}
      </div>
    `;
  }

  #table(letters: readonly DeadLetterSummary[]) {
    return html`<table>
      <thead>
        <tr>
          <th scope="col">Last seen</th>
          <th scope="col">Tag</th>
          <th scope="col">Reason</th>
          <th scope="col">Sender</th>
          <th scope="col">Size</th>
          <th scope="col">Times</th>
          <th scope="col"><span class="visually-hidden">Actions</span></th>
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
        <td class="nowrap">${formatAgo(api.now_ms() - letter.last_time_ns / 1e6)}</td>
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
                    title="Send it to the gateway again, with the current policies"
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
              title="Remove it permanently"
              @click=${() => this.#discard(letter.id)}
              @blur=${() => (this.discarding = null)}
            >
              ${this.discarding === letter.id ? "Discard permanently?" : "Discard"}
            </button>
          </div>
        </td>
      </tr>
      ${opened ? this.#content(opened) : nothing}`;
  }

  #content(letter: DeadLetter) {
    return html`<tr class="opened">
      <td colspan="7">
        <pre data-testid="dead-letter-content">${letter.decoded.join("\n")}</pre>
        ${letter.detail ? html`<pre>${letter.detail}</pre>` : nothing}
        ${
          letter.obstacle
            ? html`<p class="obstacle muted">It cannot be replayed: ${letter.obstacle}.</p>`
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
    } catch (error) {
      this.problem = errorText(error);
    }
  }

  /** There is no way back: the first click asks, the second discards. */
  #discard(id: number): void {
    if (this.discarding === id) {
      this.discarding = null;
      void this.#act(id, () => api.dropDeadLetter(id));
    } else {
      this.discarding = id;
    }
  }

  /** One action at a time for a letter; the list is read again after it. */
  async #act(id: number, action: () => Promise<void>): Promise<void> {
    if (this.busy.has(id)) return;
    this.busy = new Set([...this.busy, id]);
    try {
      await action();
      this.problem = "";
      if (this.opened?.id === id) this.opened = null;
    } catch (error) {
      this.problem = errorText(error);
    } finally {
      this.busy = new Set([...this.busy].filter((other) => other !== id));
      this.#poller.again();
    }
  }
}

/** `12 kept, 3.40 MB of 268 MB; 7 were replaced`. */
function totalsInWords(totals: DeadLetterTotals): string {
  const kept = `${formatCount(totals.count)} kept, ${formatQuantity(totals.bytes, "B")}`;
  const replaced = totals.evicted ? `; ${formatCount(totals.evicted)} were replaced so far` : "";
  return `${kept} of ${formatQuantity(totals.max_bytes, "B")}${replaced}`;
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-dead-letters-page": DeadLettersPage;
  }
}
