// Styles that elements share.

import { css } from "lit";

export const base = css`
  :host {
    box-sizing: border-box;
  }
  *,
  *::before,
  *::after {
    box-sizing: border-box;
  }
  [hidden] {
    display: none !important;
  }
  h1,
  h2,
  h3,
  p,
  ol,
  ul,
  dl,
  dd {
    margin: 0;
    padding: 0;
  }
  ul,
  ol {
    list-style: none;
  }
  a {
    color: inherit;
    text-decoration: none;
  }
  a.link {
    color: var(--accent);
  }
  a.link:hover {
    text-decoration: underline;
  }
  code,
  .mono {
    font-family: var(--mono);
    font-size: 0.94em;
  }
  .number {
    font-variant-numeric: tabular-nums;
  }
  .muted {
    color: var(--muted);
  }
  :focus-visible {
    outline: 2px solid var(--accent);
    outline-offset: 2px;
  }
  button,
  input,
  select {
    font: inherit;
    color: inherit;
  }
  .chip {
    display: inline-block;
    padding: 1px 8px;
    border-radius: 999px;
    background: var(--raised);
    color: var(--muted);
    font-size: 12px;
    white-space: nowrap;
  }
  .visually-hidden {
    position: absolute;
    width: 1px;
    height: 1px;
    overflow: hidden;
    clip-path: inset(50%);
    white-space: nowrap;
  }
`;

export const controls = css`
  .button,
  .segments,
  select.field,
  input.field {
    height: 30px;
    border: 1px solid var(--line);
    border-radius: 8px;
    background: var(--surface);
    font-size: 12.5px;
  }
  .button {
    display: inline-flex;
    align-items: center;
    gap: 6px;
    padding: 0 10px;
    cursor: pointer;
    white-space: nowrap;
  }
  .button:hover,
  .segments label:hover {
    background: var(--raised);
  }
  .button[aria-pressed="true"] {
    border-color: var(--accent);
    background: var(--accent-soft);
    color: var(--accent);
  }
  .button.primary {
    border-color: var(--accent);
    background: var(--accent);
    color: var(--on-accent);
    font-weight: 600;
  }
  select.field,
  input.field {
    padding: 0 8px;
  }
  .segments {
    display: inline-flex;
    margin: 0;
    padding: 2px;
    gap: 2px;
  }
  .segments label {
    position: relative;
    display: grid;
    place-items: center;
    padding: 0 9px;
    border-radius: 6px;
    color: var(--muted);
    cursor: pointer;
    white-space: nowrap;
  }
  .segments input {
    position: absolute;
    inset: 0;
    margin: 0;
    opacity: 0;
    cursor: pointer;
  }
  .segments label:has(:checked) {
    background: var(--accent-soft);
    color: var(--accent);
    font-weight: 600;
  }
  .segments label:has(:focus-visible) {
    outline: 2px solid var(--accent);
    outline-offset: 1px;
  }
  @media (pointer: coarse) {
    .button,
    .segments,
    select.field,
    input.field {
      height: 36px;
    }
  }
`;

export const panel = css`
  .panel {
    min-width: 0;
    border: 1px solid var(--line);
    border-radius: var(--radius);
    background: var(--surface);
    box-shadow: var(--shadow);
  }
  .panel > header {
    display: flex;
    flex-wrap: wrap;
    align-items: center;
    gap: 8px;
    padding: 10px 12px 8px 14px;
  }
  .panel h2 {
    font-size: 14px;
    font-weight: 650;
    letter-spacing: 0.01em;
  }
  .panel .about {
    color: var(--muted);
    font-size: 12px;
  }
  .panel .spring {
    flex: 1;
  }
`;

/** A page of the whole width: heading, introduction, notes and problems. */
export const page = css`
  :host {
    display: block;
    width: min(1180px, 100%);
    margin: 0 auto;
    padding: calc(var(--gap) * 1.5) var(--gap) 40px;
  }
  h1 {
    margin-bottom: 4px;
    font-size: 20px;
  }
  .lead {
    max-width: 70ch;
    margin-bottom: 20px;
    color: var(--muted);
  }
  .problem {
    margin-bottom: 12px;
    padding: 10px 14px;
    border: 1px solid var(--line);
    border-left: 3px solid var(--bad);
    border-radius: 8px;
    background: var(--surface);
  }
  .note {
    padding: 36px 24px;
    color: var(--muted);
    text-align: center;
  }
`;
