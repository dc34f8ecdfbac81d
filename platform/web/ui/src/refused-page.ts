import { LitElement, css, html, nothing } from "lit";
import { customElement } from "lit/decorators.js";
import type { DeadLetterSummary } from "./api";
import { formatAgo, formatCount, formatQuantity } from "./format";
import { Poller } from "./poller";
import { formatRoute } from "./router";
import { api } from "./services";
import { base, panel } from "./styles";

const INTERVAL_MS = 3000;
/** Newest letters that are shown. */
const MAX_LETTERS = 200;

/** What was refused, and why. */
@customElement("wv-refused-page")
export class RefusedPage extends LitElement {
  static override styles = [
    base,
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
        td:nth-child(6)::before {
          content: "times ";
          color: var(--muted);
        }
      }
    `,
  ];

  readonly #poller: Poller<DeadLetterSummary[]> = new Poller<DeadLetterSummary[]>(this, {
    interval_ms: INTERVAL_MS,
    read: () => api.deadLetters(MAX_LETTERS),
  });

  protected override render() {
    const letters = this.#poller.value;
    return html`
      <h1>Refused</h1>
      <p class="lead">
        What no policy allows, is not well-formed or makes a step fail is kept here with the reason, the
        newest first. The oldest leave when the space for it is used up.
      </p>
      <section class="panel" data-testid="refused-list">
        ${
          letters === null
            ? html`<p class="note" role="status">${this.#poller.error?.message ?? "Loading\u2026"}</p>`
            : letters.length === 0
              ? html`<p class="note">Nothing was refused.</p>`
              : this.#table(letters)
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
        </tr>
      </thead>
      <tbody>
        ${letters.map(
          (letter) =>
            html`<tr>
              <td class="nowrap">
                ${formatAgo(api.now_ms() - (letter.last_time_ns ?? letter.time_ns) / 1e6)}
              </td>
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
            </tr>`,
        )}
      </tbody>
    </table>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-refused-page": RefusedPage;
  }
}
