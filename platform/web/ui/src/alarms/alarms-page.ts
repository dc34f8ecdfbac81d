import { LitElement, type PropertyValues, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { errorText } from "../api/api-error";
import { Poller } from "../api/poller";
import type { Alarm, AlarmAction, AlarmForm, AlarmSummary } from "../api/types";
import { segments } from "../display/segments";
import { base, controls, page, panel } from "../display/styles";
import { formatRoute } from "../router";
import { api } from "../services";
import "./alarm-card";
import { byUrgency } from "./alarm-words";

const INTERVAL_MS = 5000;
const MAX_ALARMS = 200;

/** The alarms, open ones or all, and what operators do about them. Event: `alarm-changed` after an action. */
@customElement("wv-alarms-page")
export class AlarmsPage extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    page,
    css`
      .head {
        display: flex;
        flex-wrap: wrap;
        align-items: center;
        gap: 8px 16px;
        margin-bottom: 14px;
      }
      h1 {
        flex: 1;
        margin: 0;
        font-size: 20px;
      }
    `,
  ];

  /** The open alarms; null until they are known. */
  @property({ attribute: false }) open: readonly AlarmSummary[] | null = null;
  /** Why the open alarms could not be read. */
  @property() problem = "";
  /** The reference of the alarm that the address names. */
  @property() opened = "";
  @state() private all = false;
  @state() private detail: Alarm | null = null;
  /** The alarm and the action whose form is shown. */
  @state() private form: { reference: string; action: AlarmAction } | null = null;
  @state() private rejection = "";
  @state() private busy = false;

  /** The opened alarm and the revision that was read, as REFERENCE@REVISION. */
  #read = "";

  readonly #all: Poller<AlarmSummary[]> = new Poller<AlarmSummary[]>(this, {
    interval_ms: INTERVAL_MS,
    // Open alarms come by a property.
    read: async () => (this.all ? byUrgency(await api.alarms("", MAX_ALARMS)) : []),
  });

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("opened")) {
      this.detail = null;
      this.#read = "";
    }
    const known = this.#listed?.find(({ reference }) => reference === this.opened);
    const version = `${this.opened}@${known?.revision ?? ""}`;
    if (this.opened && version !== this.#read) {
      this.#read = version;
      void this.#readDetail(this.opened);
    }
  }

  get #listed(): readonly AlarmSummary[] | null {
    return this.all ? this.#all.value : this.open;
  }

  protected override render() {
    const listed = this.#listed;
    const problem = this.rejection || this.problem || (this.all ? this.#all.error?.message : "");
    const isListed = !this.opened || !listed || listed.some(({ reference }) => reference === this.opened);
    // An alarm that the address names is shown even if it is not in the list, such as a cleared one.
    const named = !isListed && this.detail ? [summaryOf(this.detail)] : [];
    const alarms = [...named, ...(listed ?? [])];
    return html`
      <div class="head">
        <h1>Alarms</h1>
        ${segments({
          label: "Alarms shown",
          options: [
            ["Open", false],
            ["All", true],
          ],
          value: this.all,
          choose: (all: boolean) => {
            this.all = all;
            this.#all.reset();
          },
        })}
      </div>
      ${problem ? html`<p class="problem" role="alert">${problem}</p>` : nothing}
      <div data-testid="alarm-list">
        ${repeat(
          alarms,
          ({ reference }) => reference,
          (alarm) => this.#card(alarm),
        )}
        ${listed === null ? html`<p class="panel note" role="status">${problem ? "" : "Loading\u2026"}</p>` : nothing}
        ${listed !== null && alarms.length === 0 ? this.#empty() : nothing}
      </div>
    `;
  }

  #empty() {
    return html`<p class="panel note">
      ${this.all ? "No alarms." : "No open alarms."} To raise alarms, add a <code>condition</code> step or an alarm rule
      to a <a class="link" href=${formatRoute({ page: "policies" })}>policy</a>.
    </p>`;
  }

  #card(alarm: AlarmSummary) {
    const { reference } = alarm;
    return html`<wv-alarm-card
      .alarm=${alarm}
      .detail=${this.detail?.reference === reference ? this.detail : null}
      .action=${this.form?.reference === reference ? this.form.action : null}
      ?busy=${this.busy}
      @action-chosen=${({ detail: action }: CustomEvent<AlarmAction | null>) =>
        (this.form = action && { reference, action })}
      @action-sent=${({ detail: form }: CustomEvent<AlarmForm>) => void this.#send(form)}
    ></wv-alarm-card>`;
  }

  async #readDetail(reference: string): Promise<void> {
    try {
      const alarm = await api.alarm(reference);
      if (reference !== this.opened) return;
      this.detail = alarm;
      this.rejection = "";
    } catch (error) {
      if (reference === this.opened) this.rejection = errorText(error);
    }
  }

  async #send(form: AlarmForm): Promise<void> {
    if (!this.form || this.busy) return;
    const { reference, action } = this.form;
    this.busy = true;
    try {
      const alarm = await api.actOnAlarm(reference, action, form);
      if (this.detail?.reference === alarm.reference) this.detail = alarm;
      this.form = null;
      this.rejection = "";
    } catch (error) {
      this.rejection = errorText(error);
    } finally {
      this.busy = false;
      this.dispatchEvent(new CustomEvent("alarm-changed"));
      if (this.all) this.#all.again();
    }
  }
}

function summaryOf(alarm: Alarm): AlarmSummary {
  return { ...alarm, entries: alarm.history.length, last: alarm.history.at(-1)! };
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-alarms-page": AlarmsPage;
  }
}
