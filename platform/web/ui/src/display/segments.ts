import { type TemplateResult, html, nothing } from "lit";

interface Segments<Value> {
  /** What is chosen, for its accessible name. */
  label: string;
  /** The texts and their values. */
  options: readonly (readonly [text: string, value: Value])[];
  value: Value;
  choose: (value: Value) => void;
  hidden?: boolean;
  test_id?: string;
}

/** Radio buttons in a row; `controls` of styles.ts has their looks. */
export function segments<Value>(choice: Segments<Value>): TemplateResult {
  return html`<fieldset
    class="segments"
    aria-label=${choice.label}
    ?hidden=${choice.hidden ?? false}
    data-testid=${choice.test_id ?? nothing}
  >
    ${choice.options.map(
      ([text, value]) =>
        html`<label
          ><input
            type="radio"
            name=${choice.label}
            .checked=${value === choice.value}
            @change=${() => choice.choose(value)}
          />${text}</label
        >`,
    )}
  </fieldset>`;
}
