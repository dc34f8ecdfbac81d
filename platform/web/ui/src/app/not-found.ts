import { LitElement, css, html } from "lit";
import { customElement, property } from "lit/decorators.js";
import { base, controls } from "../display/styles";

/** Shown for an address that no page has. */
@customElement("wv-not-found")
export class NotFound extends LitElement {
  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
        padding: 18vh 24px 24px;
        text-align: center;
      }
      h1 {
        margin-bottom: 8px;
        font-size: 20px;
      }
      p {
        margin-bottom: 18px;
        color: var(--muted);
        overflow-wrap: anywhere;
      }
      nav {
        display: inline-flex;
        flex-wrap: wrap;
        justify-content: center;
        gap: 8px;
      }
    `,
  ];

  @property() address = "";

  protected override render() {
    return html`<main data-testid="not-found">
      <h1>Page not found</h1>
      <p>The dashboard has no page at <code>${this.address}</code>.</p>
      <nav aria-label="Available pages">
        <a class="button" href="#/streams">Streams</a>
        <a class="button" href="#/alarms">Alarms</a>
        <a class="button" href="#/policies">Policies</a>
        <a class="button" href="#/dead-letters">Dead letters</a>
      </nav>
    </main>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-not-found": NotFound;
  }
}
