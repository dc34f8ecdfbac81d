import { LitElement, css, html } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import type { Installation, Policy } from "../api/types";
import {
  createPolicyCommand,
  fluentBitConfiguration,
  fluentdConfiguration,
  tagsOf,
  windvaneCommand,
} from "../commands/commands";
import "../commands/copy-block";
import { receiver } from "../commands/installation";
import { segments } from "../display/segments";
import { base, controls } from "../display/styles";
import { formatRoute } from "../router";

type Forwarder = "fluent-bit" | "fluentd";

/** A tag that matches a pattern. */
function exampleTag(pattern: string): string {
  return pattern
    .replace(/\{([^,}]*)[^}]*\}/g, "$1")
    .replaceAll("**", "sensor1")
    .replaceAll("*", "sensor1");
}

/** The first steps of an installation without data: allow a tag, send a recording, configure a forwarder. */
@customElement("wv-empty-state")
export class EmptyState extends LitElement {
  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
        padding: clamp(20px, 5vh, 56px) var(--gap);
      }
      main {
        width: min(680px, 100%);
        margin: 0 auto;
      }
      h1 {
        margin-bottom: 6px;
        font-size: 24px;
        letter-spacing: -0.015em;
      }
      .lead {
        margin-bottom: 28px;
        color: var(--muted);
        font-size: 15px;
      }
      ol > li {
        position: relative;
        padding: 0 0 26px 46px;
      }
      ol > li::before {
        position: absolute;
        top: -2px;
        left: 0;
        display: grid;
        place-items: center;
        width: 28px;
        height: 28px;
        border-radius: 50%;
        background: var(--accent-soft);
        color: var(--accent);
        font-weight: 700;
        content: attr(data-step);
      }
      ol > li.done::before {
        background: var(--accent);
        color: var(--on-accent);
        content: "✓";
      }
      ol > li:not(:last-child)::after {
        position: absolute;
        top: 32px;
        bottom: 8px;
        left: 13.5px;
        width: 1px;
        background: var(--line-strong);
        content: "";
      }
      h2 {
        font-size: 15px;
        margin-bottom: 2px;
      }
      li p {
        margin-bottom: 8px;
        color: var(--muted);
      }
      li wv-copy + p {
        margin-top: 8px;
      }
      .segments {
        margin-bottom: 8px;
      }
      .listening {
        display: flex;
        align-items: center;
        gap: 10px;
        color: var(--muted);
      }
      .listening::before {
        width: 9px;
        height: 9px;
        border-radius: 50%;
        background: var(--good);
        animation: breathe 1.8s ease-in-out infinite;
        content: "";
      }
      @keyframes breathe {
        50% {
          opacity: 0.25;
        }
      }
      @media (prefers-reduced-motion: reduce) {
        .listening::before {
          animation: none;
        }
      }
    `,
  ];

  @property({ attribute: false }) policies: readonly Policy[] = [];
  @property({ attribute: false }) installation: Installation | null = null;
  @state() private forwarder: Forwarder = "fluent-bit";

  protected override render() {
    const policy = this.policies[0];
    const pattern = (policy && tagsOf(policy)[0]) ?? "voice";
    const tag = exampleTag(pattern);
    const configuration = this.forwarder === "fluentd" ? fluentdConfiguration : fluentBitConfiguration;
    const { installation } = this;
    const to = receiver(installation, location.hostname);
    return html`<main data-testid="empty">
      <h1>Send the first data</h1>
      <p class="lead">
        Windvane accepts the data that a policy allows. Two commands on the server show the first spectrum on this page.
      </p>
      <ol>
        <li data-step="1" class=${policy ? "done" : ""}>
          <h2>Allow a tag</h2>
          ${
            policy
              ? html`<p>
                  The policy
                  <a class="link" href=${formatRoute({ page: "policy", reference: policy.reference })}
                    >${policy.reference}</a
                  >
                  allows <code>${tagsOf(policy).join(", ")}</code>.
                </p>`
              : html`<p>
                    A policy defines which tags are accepted and how they are processed. Windvane rejects all other data.
                  </p>
                  <wv-copy text=${createPolicyCommand(installation, "voice", "voice", "audio")}></wv-copy>`
          }
        </li>
        <li data-step="2">
          <h2>Send a recording</h2>
          <p>The command uses the port of the forwarders. The gateway acknowledges the data when it is safe on disk.</p>
          <wv-copy text=${windvaneCommand(installation, "send", tag, "recording.wav", "--format", "raw")}></wv-copy>
        </li>
        <li data-step="3">
          <h2>Or configure a forwarder</h2>
          ${segments({
            label: "Forwarder",
            options: [
              ["Fluent Bit", "fluent-bit"],
              ["fluentd", "fluentd"],
            ],
            value: this.forwarder,
            choose: (forwarder: Forwarder) => (this.forwarder = forwarder),
          })}
          <wv-copy label="configuration" text=${configuration(to, pattern)}></wv-copy>
          ${
            to.local
              ? html`<p data-testid="local-port">
                  The forward port accepts connections from the server itself only. To open it to other machines, write
                  <code>forward-security.toml</code> and start with <code>--forward 0.0.0.0:${to.port}</code>.
                </p>`
              : ""
          }
        </li>
      </ol>
      <p class="listening" role="status">Waiting for data. This page shows the first chunk as soon as it arrives.</p>
    </main>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-empty-state": EmptyState;
  }
}
