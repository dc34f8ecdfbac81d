import { LitElement, css, html } from "lit";
import { customElement, property } from "lit/decorators.js";
import { colorGradient } from "./colormap";
import { formatDecibel } from "../display/format";
import type { LevelRange } from "../live/level-range";
import { base, controls } from "../display/styles";

/**
 * The waterfall's colours with their levels; both ends can be set. Events: `range` with a LevelRange that was
 * entered, `auto` when the button is pressed.
 */
@customElement("wv-color-scale")
export class ColorScale extends LitElement {
  static override styles = [
    base,
    controls,
    css`
      :host {
        display: block;
        min-width: 0;
      }
      fieldset {
        display: flex;
        align-items: center;
        gap: 6px;
        margin: 0;
        padding: 0;
        border: 0;
      }
      .scale {
        position: relative;
        flex: 1;
        min-width: 60px;
        height: 12px;
        border-radius: 3px;
      }
      .scale span {
        position: absolute;
        top: 1px;
        left: 50%;
        transform: translateX(-50%);
        color: #fff;
        font: 600 9.5px/10px var(--sans);
        text-shadow:
          0 0 3px #000,
          0 0 2px #000;
        white-space: nowrap;
      }
      input.field {
        width: 58px;
        height: 26px;
        padding: 0 2px 0 6px;
        font-variant-numeric: tabular-nums;
      }
      .button {
        height: 26px;
        padding: 0 8px;
      }
    `,
  ];

  @property({ attribute: false }) range: LevelRange = { low_db: -100, high_db: 0 };
  /** The range follows the signal. */
  @property({ type: Boolean }) auto = false;

  protected override render() {
    const { low_db, high_db } = this.range;
    return html`<fieldset aria-label="Colour scale">
      ${this.#end("Lowest level, dB", low_db, (level_db) => ({ low_db: level_db, high_db }))}
      <span class="scale" style="background: ${colorGradient()}" aria-hidden="true">
        <span>${formatDecibel((low_db + high_db) / 2).replace(".0", "")}</span>
      </span>
      ${this.#end("Highest level, dB", high_db, (level_db) => ({ low_db, high_db: level_db }))}
      <button
        class="button"
        aria-pressed=${this.auto}
        title="Follow the signal's levels"
        @click=${() => this.dispatchEvent(new CustomEvent("auto"))}
      >
        Auto
      </button>
    </fieldset>`;
  }

  #end(label: string, level_db: number, changed: (level_db: number) => LevelRange) {
    return html`<input
      class="field"
      type="number"
      step="5"
      aria-label=${label}
      .value=${String(level_db)}
      @change=${(event: Event) => {
        const range = changed((event.target as HTMLInputElement).valueAsNumber);
        // An invalid range is reset.
        if (range.high_db > range.low_db) this.dispatchEvent(new CustomEvent("range", { detail: range }));
        else (event.target as HTMLInputElement).value = String(level_db);
      }}
    />`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-color-scale": ColorScale;
  }
}
