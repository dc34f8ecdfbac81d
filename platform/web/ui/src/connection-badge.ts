import { LitElement, css, html } from "lit";
import { customElement } from "lit/decorators.js";
import { live } from "./services";
import { base } from "./styles";

const TEXTS = { idle: "Offline", connecting: "Connecting", open: "Live", waiting: "Reconnecting" } as const;

/** Whether the live connection stands. */
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
      .dot {
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
    `,
  ];

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
    return html`<button
      data-testid="connection"
      data-state=${state}
      title=${state === "waiting" ? "The live connection is down. Press to try again." : "Live connection"}
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
