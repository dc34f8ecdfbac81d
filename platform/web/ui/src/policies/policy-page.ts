import { LitElement, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import { Poller } from "../api/poller";
import type { Installation, PipelineStep, Policy } from "../api/types";
import { createPolicyCommand, tagsOf, windvaneCommand } from "../commands/commands";
import "../commands/copy-block";
import { formatCount, formatQuantity } from "../display/format";
import { base, page, panel } from "../display/styles";
import { formatRoute } from "../router";
import { api } from "../services";
import { retentionEntries } from "./retention";

const INTERVAL_MS = 5000;
const FORMATS: Readonly<Record<NonNullable<Policy["format"]>, string>> = {
  raw: "the bytes of each record",
  msgpack: "each event as received",
  json: "one line of JSON per event",
};

/** The ingestion policies, and the details of one. */
@customElement("wv-policy-page")
export class PolicyPage extends LitElement {
  static override styles = [
    base,
    panel,
    page,
    css`
      .both {
        display: grid;
        grid-template-columns: minmax(240px, 340px) minmax(0, 1fr);
        gap: var(--gap);
        align-items: start;
      }
      .list {
        padding: 6px;
      }
      .list a {
        display: block;
        padding: 10px 12px;
        border-radius: 8px;
      }
      .list a:hover {
        background: var(--raised);
      }
      .list a[aria-current="page"] {
        background: var(--accent-soft);
      }
      .list b {
        font-weight: 650;
      }
      .list .muted {
        font-size: 12.5px;
        overflow-wrap: anywhere;
      }
      .detail {
        padding: 18px 20px 22px;
      }
      .detail h2 {
        font-size: 18px;
      }
      .detail h3 {
        margin: 22px 0 10px;
        font-size: 13px;
      }
      dl {
        display: grid;
        grid-template-columns: max-content minmax(0, 1fr);
        gap: 7px 20px;
        margin-top: 14px;
      }
      dt {
        color: var(--muted);
      }
      .chip {
        margin: 0 4px 4px 0;
        font-family: var(--mono);
        color: var(--text);
      }
      .steps {
        display: grid;
        gap: 8px;
      }
      .steps li {
        display: grid;
        grid-template-columns: 26px minmax(0, 1fr);
        align-items: baseline;
        padding: 9px 12px 9px 8px;
        border: 1px solid var(--line);
        border-radius: 9px;
      }
      .steps .place {
        color: var(--muted);
        text-align: center;
        font-variant-numeric: tabular-nums;
      }
      .steps .parameters {
        display: flex;
        flex-wrap: wrap;
        gap: 2px 16px;
        grid-column: 2;
        font-size: 12.5px;
      }
      .create {
        margin-top: var(--gap);
        padding: 16px 20px 20px;
      }
      .create h2 {
        margin-bottom: 4px;
      }
      .create p {
        margin-bottom: 10px;
      }
      wv-copy + wv-copy {
        margin-top: 8px;
      }
      @media (max-width: 760px) {
        .both {
          grid-template-columns: minmax(0, 1fr);
        }
      }
    `,
  ];

  /** Reference of the policy that is shown; "" for the first one. */
  @property() reference = "";
  @property({ attribute: false }) installation: Installation | null = null;
  readonly #poller: Poller<Policy[]> = new Poller<Policy[]>(this, {
    interval_ms: INTERVAL_MS,
    read: () => api.policies(),
  });

  protected override render() {
    return html`
      <h1>Ingestion policies</h1>
      <p class="lead">
        A policy defines which tags are accepted, the limits and format of their chunks, and the pipeline that processes
        them. Windvane rejects chunks whose tag matches no policy and keeps them as
        <a class="link" href=${formatRoute({ page: "dead-letters" })}>dead letters</a>.
      </p>
      ${this.#poller.render((policies) => this.#both(policies))}
      <section class="panel create">
        <h2>Create a policy</h2>
        <p class="muted">
          Create policies on the command line, from a preset or from a file. The gateway applies them at once.
        </p>
        <wv-copy text=${createPolicyCommand(this.installation, "turbines", "turbine.**", "vibration")}></wv-copy>
        <wv-copy text=${windvaneCommand(this.installation, "apply", "policies.toml")}></wv-copy>
      </section>
    `;
  }

  #both(policies: readonly Policy[]) {
    const shown = policies.find(({ reference }) => reference === (this.reference || policies[0]?.reference));
    if (policies.length === 0) {
      return html`<p class="panel note">No policies: Windvane rejects all input. Create a policy to accept data.</p>`;
    }
    return html`<div class="both">
      <nav class="panel list" aria-label="Policies">
        ${repeat(
          policies,
          ({ reference }) => reference,
          (policy) => this.#entry(policy, policy === shown),
        )}
      </nav>
      ${
        shown
          ? this.#detail(shown)
          : html`<p class="panel note">The policy ${this.reference} does not exist. Select a policy from the list.</p>`
      }
    </div>`;
  }

  #entry(policy: Policy, current: boolean) {
    return html`<a
      href=${formatRoute({ page: "policy", reference: policy.reference })}
      data-testid="policy"
      data-ref=${policy.reference}
      aria-current=${current ? "page" : "false"}
    >
      <b>${policy.reference}</b>
      <div class="muted">${policy.title || tagsOf(policy).join(", ")}</div>
    </a>`;
  }

  #detail(policy: Policy) {
    const { format = "json", limits = {}, pipeline = [] } = policy;
    return html`<section
      class="panel detail"
      aria-label="Policy ${policy.reference}"
      data-testid="policy-detail"
    >
      <h2>${policy.reference}</h2>
      ${policy.title ? html`<p class="muted">${policy.title}</p>` : nothing}
      <dl>
        <dt>Tags</dt>
        <dd>${tagsOf(policy).map((tag) => html`<span class="chip">${tag}</span>`)}</dd>
        <dt>Archive</dt>
        <dd>
          ${format} <span class="muted">${FORMATS[format]}</span>
          ${
            format === "raw" && policy.field
              ? html`<span class="muted">(field ${policy.field})</span>`
              : nothing
          }
        </dd>
        ${
          limits.chunk_bytes === undefined
            ? nothing
            : html`<dt>Largest chunk</dt>
                <dd>
                  ${formatQuantity(limits.chunk_bytes, "B")}${
                    limits.events_per_chunk === undefined
                      ? nothing
                      : html`, ${formatCount(limits.events_per_chunk)} events`
                  }
                </dd>`
        }
        ${
          policy.partitions === undefined
            ? nothing
            : html`<dt>Partitions</dt>
                <dd>${policy.partitions}</dd>`
        }
        <dt>Retention</dt>
        <dd>${retentionEntries(policy).join(", ") || html`<span class="muted">everything is kept</span>`}</dd>
      </dl>
      <h3>Pipeline</h3>
      ${
        pipeline.length
          ? html`<ol class="steps">
              ${pipeline.map((step, index) => this.#step(step, index))}
            </ol>`
          : html`<p class="muted">No steps: events are archived and not processed.</p>`
      }
      <h3>Export as JSON</h3>
      <wv-copy text=${windvaneCommand(this.installation, "policy", "show", policy.reference)}></wv-copy>
    </section>`;
  }

  #step(step: PipelineStep, index: number) {
    const { operation, name, input, keep, ...parameters } = step;
    return html`<li>
      <span class="place">${index + 1}</span>
      <span>
        <b>${operation}</b>
        ${name && name !== operation ? html`<span class="muted">as ${name}</span>` : nothing}
        ${input ? html`<span class="muted">from ${input}</span>` : nothing}
        ${keep === false ? html`<span class="muted">· not kept</span>` : nothing}
      </span>
      ${
        Object.keys(parameters).length
          ? html`<span class="parameters">
              ${Object.entries(parameters).map(
                ([key, value]) =>
                  html`<span><span class="muted">${key}</span> <code>${JSON.stringify(value)}</code></span>`,
              )}
            </span>`
          : nothing
      }
    </li>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-policy-page": PolicyPage;
  }
}
