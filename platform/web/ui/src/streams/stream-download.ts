import { LitElement, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import type { Installation } from "../api/types";
import { isSetAside } from "../charts/outputs";
import { pythonExample, shellWord, windvaneCommand } from "../commands/commands";
import "../commands/copy-block";
import { outputName } from "../display/format";
import { base, panel } from "../display/styles";
import { api } from "../services";

/** How to download a stream and its arrays: on the command line, as files, in Python. */
@customElement("wv-stream-download")
export class StreamDownload extends LitElement {
  static override styles = [
    base,
    panel,
    css`
      :host {
        display: block;
        margin-bottom: var(--gap);
      }
      section {
        display: grid;
        grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr));
        gap: 12px 24px;
        padding: 14px 16px 16px;
      }
      .panel h2 {
        margin-bottom: 6px;
        font-size: 13px;
      }
      wv-copy + wv-copy {
        margin-top: 8px;
      }
      .files {
        display: flex;
        flex-wrap: wrap;
        gap: 6px 14px;
        margin-top: 10px;
        font-size: 12.5px;
      }
    `,
  ];

  /** Of the stream. */
  @property() reference = "";
  /** References of its arrays. */
  @property({ attribute: false }) arrays: readonly string[] = [];
  @property({ attribute: false }) installation: Installation | null = null;

  protected override render() {
    const { reference, arrays, installation } = this;
    const shown = arrays.find((array) => !isSetAside(array));
    const file = fileName(reference);
    return html`<section class="panel" aria-label="Download">
      <div>
        <h2>Command line</h2>
        <wv-copy text="${windvaneCommand(installation, "cat", reference)} > ${shellWord(file)}"></wv-copy>
        ${
          shown
            ? html`<wv-copy
                text=${windvaneCommand(installation, "export", shown, `${outputName(shown)}.npy`)}
              ></wv-copy>`
            : nothing
        }
        <p class="files">
          <a class="link" href=${api.streamDataUrl(reference)} download=${file}>${reference}</a>
          ${arrays.map(
            (array) =>
              html`<a class="link" href=${api.arrayFileUrl(array)} download="${fileName(array)}.npy"
                >${outputName(array)}.npy</a
              >`,
          )}
        </p>
      </div>
      <div>
        <h2>Python</h2>
        <wv-copy label="example" text=${pythonExample(installation, reference, shown)}></wv-copy>
      </div>
    </section>`;
  }
}

function fileName(reference: string): string {
  return reference.replaceAll(/[^\w.-]+/g, "_");
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-stream-download": StreamDownload;
  }
}
