import { LitElement, css, html } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { base, controls } from "../display/styles";

const NOTICE_MS = 1600;

/** A command or a configuration, with a button that copies it. */
@customElement("wv-copy")
export class CopyBlock extends LitElement {
  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
        min-width: 0;
      }
      div {
        display: flex;
        align-items: flex-start;
        gap: 8px;
        padding: 8px 8px 8px 12px;
        border: 1px solid var(--line);
        border-radius: 9px;
        background: var(--bg);
      }
      pre {
        flex: 1;
        min-width: 0;
        margin: 0;
        padding: 4px 0;
        font: 12.5px/1.55 var(--mono);
        overflow-wrap: anywhere;
        white-space: pre-wrap;
      }
      .lines {
        position: relative;
      }
      /* Keeps the text away from the button. */
      .lines pre::before {
        content: "";
        float: right;
        width: 82px;
        height: 32px;
      }
      .lines .button {
        position: absolute;
        top: 8px;
        right: 8px;
      }
      .button {
        flex: none;
        width: 74px;
        justify-content: center;
      }
    `,
  ];

  @property() text = "";
  /** What is copied, for the button's label. */
  @property() label = "command";
  @state() private notice = "";

  protected override render() {
    return html`<div class=${this.text.includes("\n") ? "lines" : ""}>
      <pre tabindex="0" aria-label=${this.label}><code>${this.text}</code></pre>
      <button class="button" @click=${this.#copy} aria-label="Copy ${this.label}">
        ${this.notice || "Copy"}
      </button>
      <span class="visually-hidden" role="status">${this.notice}</span>
    </div>`;
  }

  #copy = async (): Promise<void> => {
    this.notice = (await copyText(this.text)) ? "Copied" : "Ctrl+C";
    setTimeout(() => (this.notice = ""), NOTICE_MS);
  };
}

/** The clipboard API exists in secure contexts only; a page over plain HTTP uses execCommand. */
async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-copy": CopyBlock;
  }
}
