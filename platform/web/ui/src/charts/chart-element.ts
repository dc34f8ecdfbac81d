import { type CSSResultGroup, LitElement, type PropertyValues, css } from "lit";
import { watchTheme } from "../display/theme";
import { cancelDraw, requestDraw } from "./draw-loop";

/** What draws on a canvas: while it is connected it follows its size and the theme, and draws on request. */
export abstract class ChartElement extends LitElement {
  static override styles: CSSResultGroup = css`
    :host {
      display: block;
      position: relative;
      height: 100%;
      min-width: 0;
      overflow: hidden;
      contain: layout paint;
    }
  `;

  #observer: ResizeObserver | null = null;
  #endWatch: () => void = () => {};

  override connectedCallback(): void {
    super.connectedCallback();
    this.#observer = new ResizeObserver(() => {
      const { clientWidth, clientHeight } = this;
      if (clientWidth > 0 && clientHeight > 0) this.sizeChanged(clientWidth, clientHeight);
    });
    this.#observer.observe(this);
    this.#endWatch = watchTheme(() => this.themeChanged());
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#observer?.disconnect();
    this.#endWatch();
    cancelDraw(this.draw);
  }

  protected override updated(_changed: PropertyValues): void {
    this.requestDraw();
  }

  /** Draws in one of the next animation frames. */
  protected requestDraw(): void {
    requestDraw(this.draw);
  }

  /** Draws what there is now. */
  abstract readonly draw: () => void;
  protected abstract sizeChanged(width_px: number, height_px: number): void;
  protected abstract themeChanged(): void;
}
