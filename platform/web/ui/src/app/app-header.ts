import { LitElement, type TemplateResult, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { alarmCount, alarmCountStyles } from "../alarms/alarm-count";
import type { AlarmSummary } from "../api/types";
import { base } from "../display/styles";
import type { Route } from "../router";
import "../status/connection-badge";
import { markStyles } from "../status/marks";

/** The top of the page: name, tabs, open alarms, connection. */
@customElement("wv-app-header")
export class AppHeader extends LitElement {
  static override styles = [
    base,
    markStyles,
    css`
      :host {
        display: block;
      }
      header {
        display: flex;
        align-items: center;
        gap: 8px 28px;
        height: 56px;
        padding: 0 16px;
        border-bottom: 1px solid var(--line);
        background: var(--surface);
      }
      .brand {
        display: inline-flex;
        align-items: center;
        gap: 10px;
        font-size: 17px;
        font-weight: 700;
        letter-spacing: -0.015em;
      }
      .brand svg {
        width: 26px;
        height: 26px;
        color: var(--accent);
      }
      nav {
        display: flex;
        align-self: stretch;
        gap: 4px;
      }
      nav a {
        display: grid;
        place-items: center;
        padding: 0 12px;
        border-bottom: 2px solid transparent;
        border-top: 2px solid transparent;
        color: var(--muted);
        font-weight: 550;
      }
      nav a:hover {
        color: var(--text);
      }
      nav a[aria-current="page"] {
        border-bottom-color: var(--accent);
        color: var(--text);
      }
      nav a:focus-visible {
        outline-offset: -4px;
      }
      wv-connection {
        margin-left: auto;
      }
      @media (max-width: 760px) {
        header {
          gap: 4px;
          height: 52px;
          padding: 0 10px;
        }
        .brand span {
          position: absolute;
          width: 1px;
          height: 1px;
          overflow: hidden;
          clip-path: inset(50%);
        }
        nav {
          gap: 0;
        }
        nav a {
          padding: 0 6px;
          font-size: 13px;
          line-height: 1.15;
          text-align: center;
        }
      }
    `,
    alarmCountStyles,
  ];

  @property({ attribute: false }) page: Route["page"] = "streams";
  /** The open alarms. */
  @property({ attribute: false }) alarms: readonly AlarmSummary[] = [];
  /** So many alarms are read at most. */
  @property({ attribute: false }) max_alarms = 0;
  /** Why the installation is unhealthy, in a few words; "" if it is healthy. */
  @property() problem = "";

  protected override render() {
    const count = alarmCount(this.alarms, this.max_alarms);
    return html`<header>
      <a class="brand" href="#/streams" aria-label="Windvane, home">${MARK}<span>Windvane</span></a>
      <nav aria-label="Pages">
        ${this.#tab("#/streams", "Streams", ["streams", "stream"])}
        ${this.#tab("#/alarms", "Alarms", ["alarms", "alarm"], count)}
        ${this.#tab("#/policies", "Policies", ["policies", "policy"])}
        ${this.#tab("#/dead-letters", "Dead letters", ["dead-letters"])}
      </nav>
      <wv-connection .problem=${this.problem}></wv-connection>
    </header>`;
  }

  #tab(address: string, text: string, pages: readonly Route["page"][], count: unknown = nothing): TemplateResult {
    const current = pages.includes(this.page);
    return html`<a href=${address} aria-current=${current ? "page" : "false"}><span>${text}${count}</span></a>`;
  }
}

const MARK = html`<svg viewBox="0 0 32 32" aria-hidden="true">
  <g fill="none" stroke="currentColor" stroke-width="3" stroke-linecap="round" stroke-linejoin="round">
    <path d="M3 11.5h16.5a4.5 4.5 0 1 0-4.3-5.8" />
    <path d="M3 18h22a4.2 4.2 0 1 1-4 5.4" />
    <path d="M3 24.5h9.5" />
  </g>
</svg>`;

declare global {
  interface HTMLElementTagNameMap {
    "wv-app-header": AppHeader;
  }
}
