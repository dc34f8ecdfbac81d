import { LitElement, type PropertyValues, css, html, nothing } from "lit";
import { customElement, property, query } from "lit/decorators.js";
import type { Alarm, AlarmAction, AlarmForm, AlarmSummary } from "../api/types";
import { formatAgo, formatMoment } from "../display/format";
import { base, controls, panel } from "../display/styles";
import { formatRoute } from "../router";
import { api } from "../services";
import { gradeName, markOfAlarm, markPicture, markStyles } from "../status/marks";
import "./alarm-detail";
import { SHELF_TIMES, actionsFor, entryInWords, findingInWords, shownGrade, stateInWords } from "./alarm-words";

const NAME_KEY = "windvane-name";
const VERBS: Readonly<Record<AlarmAction, string>> = {
  acknowledge: "Acknowledge",
  comment: "Comment",
  shelve: "Shelve",
  unshelve: "Unshelve",
  clear: "Clear",
};

/**
 * One alarm: what was found, the actions that its state allows, and its details if they are shown.
 *
 * Events: `action-chosen` with an AlarmAction whose form is to be shown, or null; `action-sent` with an AlarmForm.
 */
@customElement("wv-alarm-card")
export class AlarmCard extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    markStyles,
    css`
      :host {
        display: block;
        margin-bottom: 10px;
      }
      .alarm {
        --tone: var(--good);
        --soft: var(--raised);
        padding: 12px 16px 12px 14px;
        border-left: 4px solid var(--tone);
      }
      .alarm.grade-1 {
        --tone: var(--warn);
        --soft: var(--warn-soft);
      }
      .alarm.grade-2 {
        --tone: var(--bad);
        --soft: var(--bad-soft);
      }
      .alarm.cleared,
      .alarm.shelved {
        --tone: var(--muted);
        --soft: var(--raised);
        border-left-color: var(--line-strong);
      }
      .top {
        display: grid;
        grid-template-columns: minmax(0, 1fr) auto;
        gap: 4px 16px;
        align-items: start;
      }
      .title {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 4px 10px;
        min-width: 0;
        font-weight: 650;
        overflow-wrap: anywhere;
      }
      .grade {
        display: inline-flex;
        align-items: center;
        gap: 5px;
        padding: 1px 9px;
        border-radius: 999px;
        background: var(--soft);
        color: var(--tone);
        font-size: 12px;
        font-weight: 650;
      }
      .when {
        color: var(--muted);
        font-size: 12.5px;
        font-variant-numeric: tabular-nums;
        white-space: nowrap;
      }
      .finding {
        grid-column: 1 / -1;
        overflow-wrap: anywhere;
        font-variant-numeric: tabular-nums;
      }
      .finding::first-letter {
        text-transform: uppercase;
      }
      .last {
        grid-column: 1 / -1;
        color: var(--muted);
        font-size: 12.5px;
        overflow-wrap: anywhere;
      }
      .actions {
        display: flex;
        flex-wrap: wrap;
        gap: 6px;
        margin-top: 10px;
      }
      form {
        display: flex;
        flex-wrap: wrap;
        gap: 6px;
        margin-top: 10px;
        padding: 10px;
        border-radius: 8px;
        background: var(--raised);
      }
      form .by {
        width: 130px;
      }
      form .text {
        flex: 1 1 200px;
        min-width: 0;
      }
      @media (max-width: 600px) {
        .top {
          grid-template-columns: minmax(0, 1fr);
        }
        .actions .button {
          flex: 1 1 auto;
          justify-content: center;
        }
        form .by {
          flex: 1 1 100%;
        }
      }
    `,
  ];

  @property({ attribute: false }) alarm!: AlarmSummary;
  /** The same alarm in full; null while its details are hidden. */
  @property({ attribute: false }) detail: Alarm | null = null;
  /** The action whose form is shown. */
  @property({ attribute: false }) action: AlarmAction | null = null;
  /** The form was sent and is not answered. */
  @property({ type: Boolean }) busy = false;
  @query("form .text") private text!: HTMLInputElement | null;

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has("action")) this.text?.focus();
  }

  protected override render() {
    const { alarm, detail } = this;
    const grade = shownGrade(alarm);
    return html`<article
      class="panel alarm grade-${grade} ${alarm.state}"
      data-testid="alarm"
      data-ref=${alarm.reference}
      data-state=${alarm.state}
    >
      <div class="top">
        <div class="title">
          <span class="grade" data-testid="alarm-grade"
            >${markPicture(markOfAlarm({ grade, state: alarm.state }))}${gradeName(grade)}</span
          >
          <a class="link" href=${formatRoute({ page: "stream", reference: alarm.stream })}>${alarm.stream}</a>
          <span class="muted">${alarm.name}</span>
          <span class="chip" data-testid="alarm-state">${stateInWords(alarm)}</span>
        </div>
        <span class="when" title="Event time of row ${alarm.row} of ${alarm.output}"
          >${formatMoment(alarm.raised_ns / 1e9)}</span
        >
        <p class="finding">${findingInWords(alarm)}</p>
        ${
          alarm.entries > 1
            ? html`<p class="last">
                ${entryInWords(alarm.last)}${alarm.last.text ? html`: ${alarm.last.text}` : nothing},
                ${formatAgo(api.now_ms() - alarm.last.at_ns / 1e6)}
              </p>`
            : nothing
        }
      </div>
      <div class="actions">
        <a
          class="button"
          href=${formatRoute(detail ? { page: "alarms" } : { page: "alarm", reference: alarm.reference })}
          aria-expanded=${detail ? "true" : "false"}
          >${detail ? "Hide details" : "Show details"}</a
        >
        ${actionsFor(alarm).map((action) => this.#button(action))}
      </div>
      ${this.action ? this.#form(this.action) : nothing}
      ${detail ? html`<wv-alarm-detail .alarm=${detail} data-testid="alarm-detail"></wv-alarm-detail>` : nothing}
    </article>`;
  }

  #button(action: AlarmAction) {
    const chosen = this.action === action;
    return html`<button
      class="button"
      type="button"
      aria-pressed=${chosen ? "true" : "false"}
      @click=${() => this.dispatchEvent(new CustomEvent("action-chosen", { detail: chosen ? null : action }))}
    >
      ${VERBS[action]}
    </button>`;
  }

  #form(action: AlarmAction) {
    return html`<form @submit=${this.#send}>
      <input
        class="field by"
        name="by"
        required
        maxlength="100"
        placeholder="Your name"
        aria-label="Your name"
        .value=${localStorage.getItem(NAME_KEY) ?? ""}
      />
      ${
        action === "shelve"
          ? html`<select class="field" name="for_s" aria-label="Shelve for">
              ${SHELF_TIMES.map(([text, seconds]) => html`<option value=${seconds}>${text}</option>`)}
            </select>`
          : nothing
      }
      <input
        class="field text"
        name="text"
        maxlength="2000"
        ?required=${action === "comment"}
        placeholder=${action === "comment" ? "Comment" : "Reason (optional)"}
        aria-label="Text"
        autocomplete="off"
      />
      <button class="button primary" type="submit" ?disabled=${this.busy}>${VERBS[action]}</button>
    </form>`;
  }

  #send = (event: SubmitEvent): void => {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    const by = String(form.get("by") ?? "").trim();
    localStorage.setItem(NAME_KEY, by);
    const for_s = this.action === "shelve" ? { for_s: Number(form.get("for_s")) } : {};
    const detail: AlarmForm = { by, text: String(form.get("text") ?? ""), ...for_s };
    this.dispatchEvent(new CustomEvent("action-sent", { detail }));
  };
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-alarm-card": AlarmCard;
  }
}
