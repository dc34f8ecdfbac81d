import { describe, expect, it } from "vitest";
import type { Policy } from "../../src/api/types";
import { retentionEntries } from "../../src/policies/retention";

const entries = (retention?: Policy["retention"]): string[] =>
  retentionEntries({ reference: "p", ...(retention && { retention }) }).map((text) => text.replaceAll("\u202f", " "));

describe("the retention of a policy", () => {
  it("has no entry if all is kept", () => {
    expect(entries()).toEqual([]);
    expect(entries({ stream_hours: null, array_hours: null, pyramid_hours: null, bytes: null })).toEqual([]);
  });

  it("has an entry for each limit, in days if these are whole", () => {
    expect(entries({ stream_hours: 1, array_hours: 720, pyramid_hours: 8760, bytes: 5e11 })).toEqual([
      "chunks 1 h",
      "rows 30 days",
      "overviews 365 days",
      "at most 500 GB",
    ]);
    expect(entries({ array_hours: 0.05, stream_hours: 36 })).toEqual(["chunks 36 h", "rows 0.05 h"]);
  });
});
