import { LitElement, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import type { HealthCondition } from "./health";
import { base, controls } from "../display/styles";

/** Conditions that are shown at first. */
const SHOWN = 2;

/** Why the installation is unhealthy, what is safe, and what to do next; nothing while it is healthy. */
@customElement("wv-health-banner")
export class HealthBanner extends LitElement {
  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
      }
      section {
        display: grid;
        gap: 6px;
        max-height: 40vh;
        padding: 10px 16px;
        overflow-y: auto;
        border-bottom: 1px solid var(--bad);
        background: var(--bad-soft);
      }
      li {
        display: grid;
        grid-template-columns: 14px minmax(0, 1fr);
        gap: 0 8px;
        align-items: baseline;
      }
      li + li {
        margin-top: 6px;
      }
      svg {
        width: 12px;
        height: 12px;
        color: var(--bad);
        align-self: center;
      }
      p {
        overflow-wrap: anywhere;
      }
      b {
        color: var(--bad);
        font-weight: 650;
      }
      .advice {
        grid-column: 2;
        font-size: 13px;
      }
      .button {
        justify-self: start;
      }
      @media (max-width: 760px) {
        section {
          padding: 10px 12px;
        }
      }
    `,
  ];

  @property({ attribute: false }) conditions: readonly HealthCondition[] = [];
  @state() private all = false;

  protected override render() {
    const { conditions } = this;
    if (conditions.length === 0) return nothing;
    const shown = this.all ? conditions : conditions.slice(0, SHOWN);
    const hidden = conditions.length - SHOWN;
    return html`<section role="alert" aria-label="Health" data-testid="health">
      <ul>
        ${repeat(
          shown,
          ({ key }) => key,
          ({ title, detail, advice }) =>
            html`<li>
              <svg viewBox="0 0 12 12" aria-hidden="true"><path fill="currentColor" d="M6 0l6 6-6 6-6-6z" /></svg>
              <p><b>${title}.</b> ${detail}</p>
              <p class="advice">${advice}</p>
            </li>`,
        )}
      </ul>
      ${
        hidden > 0
          ? html`<button class="button" type="button" aria-expanded=${this.all} @click=${() => (this.all = !this.all)}>
              ${this.all ? "Show fewer" : `Show ${hidden} more`}
            </button>`
          : nothing
      }
    </section>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-health-banner": HealthBanner;
  }
}
