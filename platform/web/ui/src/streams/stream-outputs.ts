import { LitElement, type PropertyValues, css, html, nothing } from "lit";
import { customElement, property, state } from "lit/decorators.js";
import { repeat } from "lit/directives/repeat.js";
import type { ArraySummary } from "../api/types";
import { isSetAside, outputKind } from "../charts/outputs";
import "../charts/spectrum-panel";
import "../charts/trend-panel";
import { formatQuantity, outputTitle } from "../display/format";
import { base, controls, panel } from "../display/styles";

/** A live panel for each output of a stream: spectra on the left, trends on the right if there is room. */
@customElement("wv-stream-outputs")
export class StreamOutputs extends LitElement {
  static override styles = [
    base,
    controls,
    panel,
    css`
      :host {
        display: block;
        container-type: inline-size;
      }
      .outputs {
        display: grid;
        gap: var(--gap);
        grid-template-columns: minmax(0, 1fr);
        align-items: start;
      }
      .column {
        display: grid;
        gap: var(--gap);
        min-width: 0;
      }
      .column.trends {
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr));
      }
      .outputs.lone {
        --trend-height: clamp(220px, 52vh, 560px);
      }
      @container (min-width: 1010px) {
        .outputs.both {
          grid-template-columns: minmax(0, 1.65fr) minmax(0, 1fr);
        }
        .outputs.both .trends {
          grid-template-columns: minmax(0, 1fr);
        }
      }
    `,
  ];

  /** Of the stream. */
  @property() reference = "";
  @property({ attribute: false }) arrays: readonly ArraySummary[] = [];
  /** Arrays of samples that are drawn: they cost the most, so only on demand. */
  @state() private opened: ReadonlySet<string> = new Set();

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("reference")) this.opened = new Set();
  }

  protected override render() {
    const current = this.arrays.filter((array) => !isSetAside(array.reference));
    const spectra = current.filter((array) => outputKind(array) === "spectrum");
    const others = current.filter((array) => outputKind(array) !== "spectrum");
    const shape = spectra.length && others.length ? "both" : current.length === 1 ? "lone" : "";
    return html`<div class="outputs ${shape}">
      ${this.#column("", spectra, ({ reference }) => {
        return html`<wv-spectrum-panel .reference=${reference}></wv-spectrum-panel>`;
      })}
      ${this.#column("trends", others, (array) => this.#other(array))}
    </div>`;
  }

  #column(name: string, arrays: readonly ArraySummary[], panelOf: (array: ArraySummary) => unknown) {
    if (arrays.length === 0) return nothing;
    return html`<div class="column ${name}">${repeat(arrays, ({ reference }) => reference, panelOf)}</div>`;
  }

  #other(array: ArraySummary) {
    const { reference } = array;
    const kind = outputKind(array);
    if (kind === "trend" || this.opened.has(reference)) {
      return html`<wv-trend-panel .reference=${reference}></wv-trend-panel>`;
    }
    return html`<section class="panel">
      <header>
        <h2>${outputTitle(reference)}</h2>
        <span class="about">${describe(array)}</span>
        <span class="spring"></span>
        ${
          kind === "samples"
            ? html`<button class="button" @click=${() => (this.opened = new Set([...this.opened, reference]))}>
                Show signal
              </button>`
            : nothing
        }
      </header>
    </section>`;
  }
}

/** `i2, 25.6 k rows/s`. */
function describe({ dtype, attrs }: ArraySummary): string {
  const values = typeof dtype === "string" ? dtype.replace(/^[<>|=]/, "") : "records";
  const rate_hz = Number(attrs["rate_hz"] ?? NaN);
  return `${values}${rate_hz > 0 ? `, ${formatQuantity(rate_hz, "rows/s")}` : ""}`;
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-stream-outputs": StreamOutputs;
  }
}
