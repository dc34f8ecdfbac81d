import { type CSSResultGroup, LitElement, type PropertyValues, type TemplateResult, css, html, nothing } from "lit";
import { property, state } from "lit/decorators.js";
import { base, controls, panel } from "../display/styles";
import type { ArrayFeed, FeedObserver } from "../live/array-feed";
import { cancelDraw, requestDraw } from "./draw-loop";

/** The panel of one array: it opens the array's live feed, stops it while it is not shown, and draws its rows. */
export abstract class FeedPanel<Feed extends ArrayFeed> extends LitElement {
  static override styles: CSSResultGroup = [
    base,
    controls,
    panel,
    css`
      :host {
        display: block;
        min-width: 0;
        container-type: inline-size;
      }
      .message {
        position: absolute;
        inset: 0;
        display: grid;
        place-items: center;
        padding: 24px;
        color: var(--muted);
        text-align: center;
      }
    `,
  ];

  /** Reference of the array. */
  @property() reference = "";
  @state() protected feed: Feed | null = null;

  override connectedCallback(): void {
    super.connectedCallback();
    if (this.hasUpdated) this.feed?.start();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    cancelDraw(this.#draw);
    this.feed?.stop();
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (!changed.has("reference")) return;
    this.feed?.stop();
    this.feed = this.open(this.reference, {
      changed: () => this.feedChanged(),
      rowsChanged: () => this.requestDraw(),
    });
    this.feed.start();
  }

  protected requestDraw(): void {
    requestDraw(this.#draw);
  }

  /** Resets the panel, and creates the feed of an array. */
  protected abstract open(reference: string, observer: FeedObserver): Feed;
  /** The state or the layout of the feed changed. */
  protected abstract feedChanged(): void;
  protected abstract draw(feed: Feed): void;

  readonly #draw = (): void => {
    if (this.hasUpdated && this.feed) this.draw(this.feed);
  };

  /** What is shown instead of rows: the state of the feed, or `missing` while it has none that can be drawn. */
  protected message(missing = ""): TemplateResult | typeof nothing {
    const { feed } = this;
    if (!feed) return nothing;
    let text = missing;
    if (feed.state === "failed") text = feed.detail;
    else if (feed.state === "connecting") text = "Connecting\u2026";
    else if (feed.row_count === 0) text = "Waiting for the first rows\u2026";
    return text ? html`<p class="message" role="status">${text}</p>` : nothing;
  }
}
