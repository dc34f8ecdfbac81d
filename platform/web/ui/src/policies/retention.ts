// What a policy keeps, as text. Pure.

import type { Policy } from "../api/types";
import { formatCounted, formatQuantity } from "../display/format";

const DAY_HOURS = 24;

/** One entry for each limit, such as "rows 30 days"; none if the policy keeps everything. */
export function retentionEntries(policy: Policy): string[] {
  const { stream_hours, array_hours, pyramid_hours, bytes } = policy.retention ?? {};
  const times: readonly [string, number | null | undefined][] = [
    ["chunks", stream_hours],
    ["rows", array_hours],
    ["overviews", pyramid_hours],
  ];
  const entries = times.flatMap(([what, hours]) =>
    typeof hours === "number" ? [`${what} ${formatHours(hours)}`] : [],
  );
  return typeof bytes === "number" ? [...entries, `at most ${formatQuantity(bytes, "B")}`] : entries;
}

/** Whole days from two days on; hours below. */
function formatHours(hours: number): string {
  const whole_days = hours >= 2 * DAY_HOURS && hours % DAY_HOURS === 0;
  return whole_days ? formatCounted(hours / DAY_HOURS, "day") : `${Number(hours.toPrecision(4))} h`;
}
