import { LitElement, css, html, nothing } from "lit";
import { customElement, property } from "lit/decorators.js";
import { base, controls } from "../display/styles";

/**
 * Asks for the access token and hands it to the server once, as `?token=` of a navigation; the server answers
 * with a cookie that scripts cannot read.
 */
@customElement("wv-token-prompt")
export class TokenPrompt extends LitElement {
  static override styles = [
    base,
    controls,
    css`
      :host {
        display: grid;
        grid-row: 1 / -1;
        place-items: center;
        padding: 24px;
      }
      form {
        width: min(540px, 100%);
        padding: 28px;
        border: 1px solid var(--line);
        border-radius: 16px;
        background: var(--surface);
        box-shadow: var(--shadow);
      }
      h1 {
        margin-bottom: 6px;
        font-size: 20px;
      }
      label {
        display: block;
        margin: 18px 0 6px;
        font-weight: 600;
      }
      .row {
        display: flex;
        gap: 8px;
        margin-bottom: 18px;
      }
      input.field {
        flex: 1;
        min-width: 0;
        height: 38px;
        font-family: var(--mono);
        background: var(--bg);
      }
      .button {
        height: 38px;
        padding: 0 16px;
      }
      .bad {
        margin-top: 14px;
        padding: 8px 12px;
        border-radius: 8px;
        background: var(--bad-soft);
        color: var(--bad);
      }
      .muted {
        margin-bottom: 8px;
      }
    `,
  ];

  /** The server rejected the token that was given. */
  @property({ type: Boolean }) rejected = false;

  protected override render() {
    return html`<form @submit=${this.#submit} data-testid="token-prompt">
      <h1>Sign in to Windvane</h1>
      <p class="muted">This server requires an access token.</p>
      ${this.rejected ? html`<p class="bad" role="alert">The server rejected this token. Check it and try again.</p>` : nothing}
      <input type="text" autocomplete="username" value="windvane" hidden />
      <label for="token">Access token</label>
      <div class="row">
        <input id="token" class="field" type="password" autocomplete="current-password" required autofocus />
        <button class="button primary">Sign in</button>
      </div>
      <p class="muted">
        The token is in the file <code>token</code> in the home directory of the server, which
        <code>windvane up</code> prints when it starts.
      </p>
    </form>`;
  }

  #submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const token = this.renderRoot.querySelector<HTMLInputElement>("#token")!.value.trim();
    if (!token) return;
    const address = new URL(location.href);
    address.searchParams.set("token", token);
    location.replace(address.href);
  };
}

/** Removes `?token=` from the address after the server has read it; true if there was one. */
export function takeTokenFromAddress(): boolean {
  const address = new URL(location.href);
  if (!address.searchParams.has("token")) return false;
  address.searchParams.delete("token");
  history.replaceState(history.state, "", address.href);
  return true;
}

declare global {
  interface HTMLElementTagNameMap {
    "wv-token-prompt": TokenPrompt;
  }
}
