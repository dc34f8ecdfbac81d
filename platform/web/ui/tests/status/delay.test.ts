import { describe, expect, it } from "vitest";
import { delayInShort, delayInWords } from "../../src/status/delay";

describe("a stream that is behind", () => {
  const behind = { step: "condition", reason: "1.1 s a chunk" };

  it("names the step, the reason and the waiting chunks", () => {
    const late = { behind, lag_chunks: 608, checkpoint_age_s: 41 };
    expect(delayInShort(late)).toBe("behind: condition");
    expect(delayInWords(late)).toBe(
      "608 chunks wait for the step condition: 1.1 s a chunk. The last checkpoint is 41 s old. No data is lost.",
    );
  });

  it("is described with the facts that are known", () => {
    expect(delayInWords({ behind: { step: "", reason: "" } })).toBe("It is behind.");
    expect(delayInWords({ behind, lag_chunks: 1, checkpoint_age_s: null })).toContain("1 chunk waits for the step");
    expect(delayInShort({ behind: { step: "", reason: "a hole" } })).toBe("behind");
  });

  it.each([{}, { behind: null, lag_chunks: 3 }])("is not %j", (stream) => {
    expect([delayInShort(stream), delayInWords(stream)]).toEqual([null, null]);
  });
});
