import { type TemplateResult, css, html, nothing } from "lit";
import type { AlarmSummary } from "../api/types";
import { markPicture } from "../status/marks";
import { type AlarmCount, countByGrade } from "./alarm-words";

export const alarmCountStyles = css`
  .counts {
    display: inline-flex;
    gap: 8px;
    margin-left: 8px;
    vertical-align: -1px;
  }
  .count {
    display: inline-flex;
    align-items: center;
    gap: 3px;
    color: var(--warn);
    font-size: 12px;
    font-weight: 650;
    font-variant-numeric: tabular-nums;
  }
  .count.grade-2 {
    color: var(--bad);
  }
  @media (max-width: 760px) {
    .counts {
      gap: 4px;
      margin-left: 4px;
    }
    .count {
      gap: 2px;
      font-size: 11.5px;
    }
  }
`;

/** The open alarms by grade; an outline once all are acknowledged. `max`: so many alarms are read at most. */
export function alarmCount(alarms: readonly AlarmSummary[], max: number): TemplateResult | typeof nothing {
  const counts = countByGrade(alarms);
  if (counts.length === 0) return nothing;
  const more = alarms.length >= max ? "+" : "";
  return html`<span class="counts" data-testid="alarm-count">${counts.map((each) => countPicture(each, more))}</span>`;
}

function countPicture({ grade, count, raised }: AlarmCount, more: string): TemplateResult {
  const name = grade === 2 ? "danger" : "warning";
  const words = `${name}, ${raised ? `${raised} not acknowledged` : "all acknowledged"}`;
  return html`<span class="count grade-${grade}" title="${count} ${words}"
    >${markPicture(raised ? name : `${name}-seen`, words)}${count}${more}</span
  >`;
}
