import { LitElement, css, html } from "lit";
import { customElement, property } from "lit/decorators.js";
import { live } from "../services";
import { base } from "../display/styles";

const TEXTS = { idle: "Offline", connecting: "Connecting", open: "Live", waiting: "Reconnecting" } as const;

/** Whether the live feed is connected; if the installation is unhealthy, that instead. */
@customElement("wv-connection")
export class ConnectionBadge extends LitElement {
  static override styles = [
    base,
    css`
      :host {
        display: block;
      }
      button {
        display: inline-flex;
        align-items: center;
        gap: 8px;
        height: 30px;
        padding: 0 12px;
        border: 1px solid var(--line);
        border-radius: 999px;
        background: none;
        font-size: 12.5px;
        white-space: nowrap;
      }
      button[data-state="waiting"] {
        border-color: transparent;
        background: var(--warn-soft);
        color: var(--warn);
        cursor: pointer;
      }
      button[data-state="unhealthy"] {
        max-width: 42vw;
        border-color: var(--bad);
        background: var(--bad-soft);
        color: var(--bad);
        font-weight: 600;
      }
      button > span:last-child {
        overflow: hidden;
        text-overflow: ellipsis;
      }
      .dot {
        flex: none;
        width: 8px;
        height: 8px;
        border-radius: 50%;
        background: var(--muted);
      }
      [data-state="open"] .dot {
        background: var(--good);
      }
      [data-state="waiting"] .dot {
        background: var(--warn);
      }
      /* The header of a phone has no room for it: the banner has the words. */
      @media (max-width: 480px) {
        button[data-state="unhealthy"] > span:last-child {
          position: absolute;
          width: 1px;
          height: 1px;
          clip-path: inset(50%);
        }
      }
      [data-state="unhealthy"] .dot {
        border-radius: 1px;
        background: var(--bad);
        transform: rotate(45deg);
      }
    `,
  ];

  /** Why the installation is unhealthy, in a few words; "" if it is healthy. */
  @property() problem = "";

  #endWatch: () => void = () => {};

  override connectedCallback(): void {
    super.connectedCallback();
    this.#endWatch = live.watch(() => this.requestUpdate());
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#endWatch();
  }

  protected override render() {
    const { state } = live;
    if (this.problem && state === "open") {
      return html`<button data-testid="connection" data-state="unhealthy" title=${this.problem} disabled>
        <span class="dot"></span><span role="status">${this.problem}</span>
      </button>`;
    }
    return html`<button
      data-testid="connection"
      data-state=${state}
      title=${state === "waiting" ? "The live feed is disconnected. Click to reconnect now." : "Live feed"}
      ?disabled=${state !== "waiting"}
      @click=${() => live.retryNow()}
    >
      <span class="dot"></span><span role="status">${TEXTS[state]}</span>
    </button>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-connection": ConnectionBadge;
  }
}
