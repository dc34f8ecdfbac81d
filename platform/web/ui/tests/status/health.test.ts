import { describe, expect, it } from "vitest";
import type { Health, HealthReason } from "../../src/api/api";
import { delayInShort, delayInWords } from "../../src/status/delay";
import { headline, troubles } from "../../src/status/health";

const CODES = [
  "disk-full",
  "io-error",
  "bus-away",
  "crash-loop",
  "tier-away",
  "stuck",
  "settings-broken",
  "no-checkpoint",
  "checkpoint-late",
];
const unhealthy = (...reasons: HealthReason[]): Health => ({ status: "unhealthy", reasons });
const reason = (code: string, tier = "worker", detail = "it is so"): HealthReason => ({ tier, code, detail });

describe("the platform's health", () => {
  it.each([null, { status: "ok" }, { status: "ok", reasons: [] }] as const)("is nothing to say of %j", (health) => {
    expect(troubles(health as Health | null)).toEqual([]);
    expect(headline([])).toBeNull();
  });

  it.each(CODES)("says what %s means, why, and what to do", (code) => {
    const [found] = troubles(unhealthy(reason(code)));
    expect(found!.title).not.toMatch(/^Problem/);
    expect(found!.detail).toBe("Worker: it is so.");
    expect(found!.advice.length).toBeGreaterThan(20);
    expect(headline([found!])).toBe(found!.title);
  });

  it("never advises a step that loses data", () => {
    const advice = troubles(unhealthy(...CODES.map((code) => reason(code)))).map((found) => found.advice);
    for (const text of advice) expect(text).not.toMatch(/\b(delete|remove|move|reset|skip|drop|retention)\b/i);
  });

  it("names the tier that is away", () => {
    expect(headline(troubles(unhealthy(reason("tier-away", "gateway"))))).toBe("The gateway is away");
  });

  it("puts the worst first, and codes of later versions last", () => {
    const found = troubles(unhealthy(reason("on-fire"), reason("checkpoint-late"), reason("disk-full")));
    expect(found.map(({ title }) => title)).toEqual([
      "The disk is full",
      "Checkpoints are late",
      "Problem: on-fire",
    ]);
    expect(headline(found)).toBe("3 problems");
  });

  it("is one headline for the same trouble of several tiers", () => {
    const found = troubles(unhealthy(reason("disk-full", "gateway"), reason("disk-full", "worker")));
    expect(headline(found)).toBe("The disk is full");
    expect(new Set(found.map(({ key }) => key)).size).toBe(2);
  });
});

describe("a stream that is behind", () => {
  const behind = { step: "condition", reason: "1.1 s a chunk" };

  it("names the step, the reason and what waits", () => {
    const late = { behind, lag_chunks: 608, checkpoint_age_s: 41 };
    expect(delayInShort(late)).toBe("behind: condition");
    expect(delayInWords(late)).toBe(
      "608 chunks wait for the step condition: 1.1 s a chunk. The last checkpoint is 41 s old. Nothing is lost.",
    );
  });

  it("is told in words although less is known", () => {
    expect(delayInWords({ behind: { step: "", reason: "" } })).toBe("It is behind.");
    expect(delayInWords({ behind, lag_chunks: 1, checkpoint_age_s: null })).toContain("1 chunk waits for the step");
    expect(delayInShort({ behind: { step: "", reason: "a hole" } })).toBe("behind");
  });

  it.each([{}, { behind: null, lag_chunks: 3 }])("is none of %j", (stream) => {
    expect([delayInShort(stream), delayInWords(stream)]).toEqual([null, null]);
  });
});
