import { type TemplateResult, css, html, nothing } from "lit";
import { repeat } from "lit/directives/repeat.js";
import { findingInWords, shownGrade } from "../alarms/alarm-words";
import type { AlarmSummary, StreamSummary } from "../api/types";
import { formatAgo, formatCount, formatCounted, formatMoment, plural } from "../display/format";
import { formatRoute } from "../router";
import { delayInWords } from "../status/delay";
import { alarmInWords, markOfAlarm, markPicture } from "../status/marks";

/** Most failing steps that are shown. */
const MAX_FAILING = 10;

/** Styles of the notices; the element also needs `panel` and `markStyles`. */
export const noticeStyles = css`
  .notice {
    display: grid;
    grid-template-columns: 12px minmax(0, 1fr);
    gap: 2px 8px;
    align-items: baseline;
    margin-bottom: 8px;
    padding: 8px 14px;
    border-color: var(--tone);
    background: var(--soft);
    color: inherit;
    overflow-wrap: anywhere;
  }
  .notice:has(+ :not(.notice)) {
    margin-bottom: var(--gap);
  }
  .notice b {
    color: var(--tone);
  }
  .notice .mark {
    align-self: center;
  }
  .notice.fault {
    --tone: var(--info);
    --soft: var(--info-soft);
  }
  .notice.danger,
  .notice.danger-seen {
    --tone: var(--bad);
    --soft: var(--bad-soft);
  }
  .notice.warning,
  .notice.warning-seen {
    --tone: var(--warn);
    --soft: var(--warn-soft);
  }
  .notice.shelved {
    --tone: var(--muted);
    --soft: var(--surface);
  }
  a.notice:hover b {
    text-decoration: underline;
  }
`;

/** What is abnormal about a stream: its open alarms, its delay, its failing steps. */
export function streamNotices(
  stream: StreamSummary,
  alarms: readonly AlarmSummary[],
  now_ms: number,
): (TemplateResult | typeof nothing)[] {
  return [alarmNotices(stream, alarms), delayNotice(stream), failingNotices(stream, now_ms)];
}

function alarmNotices({ alarm }: StreamSummary, alarms: readonly AlarmSummary[]): TemplateResult {
  const more = (alarm?.open ?? 0) - alarms.length;
  return html`${repeat(
    alarms,
    ({ reference }) => reference,
    (each) => {
      const shown = { grade: shownGrade(each), state: each.state };
      return html`<a
        class="panel notice ${markOfAlarm(shown)}"
        href=${formatRoute({ page: "alarm", reference: each.reference })}
        data-testid="open-alarm"
        >${markPicture(markOfAlarm(shown))}<span
          ><b>${alarmInWords(shown)}.</b> ${each.name} since ${formatMoment(each.raised_ns / 1e9)}:
          ${findingInWords(each)}.</span
        ></a
      >`;
    },
  )}${
    more > 0 && alarms.length
      ? html`<p class="panel notice shelved">
          <span></span><span>${formatCount(more)} more open ${plural(more, "alarm")}: see
          <a class="link" href=${formatRoute({ page: "alarms" })}>Alarms</a>.</span>
        </p>`
      : nothing
  }`;
}

function delayNotice(stream: StreamSummary): TemplateResult | typeof nothing {
  const words = delayInWords(stream);
  if (words === null) return nothing;
  return html`<p class="panel notice fault" role="status" data-testid="behind">
    ${markPicture("fault")}<span><b>Behind.</b> ${words}</span>
  </p>`;
}

function failingNotices({ failing }: StreamSummary, now_ms: number): TemplateResult {
  return html`${failing.slice(0, MAX_FAILING).map(
    ({ step, message, time_ns, times }) =>
      html`<p class="panel notice fault" role="status" data-testid="failing-step">
        ${markPicture("fault")}<span
          ><b>Failing step: ${step}.</b> ${message.replace(/[.]$/, "")}.
          <span class="muted"
            >${formatCounted(times, "failure")}, last ${formatAgo(now_ms - time_ns / 1e6)}. Other steps continue. See the
            <a class="link" href=${formatRoute({ page: "dead-letters" })}>dead letters</a>.</span
          ></span
        >
      </p>`,
  )}`;
}
