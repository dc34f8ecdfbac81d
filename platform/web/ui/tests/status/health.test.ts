import { describe, expect, it } from "vitest";
import type { Health, HealthReason } from "../../src/api/types";
import { healthConditions, headline } from "../../src/status/health";

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
const unhealthy = (...reasons: HealthReason[]): Health => ({ status: "unhealthy", version: "1", reasons });
const reason = (code: string, tier = "worker", detail = "it is so"): HealthReason => ({ tier, code, detail });

describe("the health of an installation", () => {
  it.each([null, { status: "ok" }, { status: "ok", reasons: [] }] as const)("has no conditions for %j", (health) => {
    expect(healthConditions(health as Health | null)).toEqual([]);
    expect(headline([])).toBeNull();
  });

  it.each(CODES)("has a title, a cause and a next step for %s", (code) => {
    const [found] = healthConditions(unhealthy(reason(code)));
    expect(found!.title).not.toMatch(/^Problem/);
    expect(found!.detail).toBe("Worker: it is so.");
    expect(found!.advice.length).toBeGreaterThan(20);
    expect(headline([found!])).toBe(found!.title);
  });

  it("never advises a step that loses data", () => {
    const advice = healthConditions(unhealthy(...CODES.map((code) => reason(code)))).map((found) => found.advice);
    for (const text of advice) expect(text).not.toMatch(/\b(delete|remove|move|reset|skip|drop|retention)\b/i);
  });

  it("names the tier that is not running", () => {
    expect(headline(healthConditions(unhealthy(reason("tier-away", "gateway"))))).toBe("The gateway is not running");
  });

  it("puts the worst first, and codes of later versions last", () => {
    const found = healthConditions(unhealthy(reason("on-fire"), reason("checkpoint-late"), reason("disk-full")));
    expect(found.map(({ title }) => title)).toEqual([
      "The disk is full",
      "Checkpoints are late",
      "Problem: on-fire",
    ]);
    expect(headline(found)).toBe("3 problems");
  });

  it("is one headline for the same condition of several tiers", () => {
    const found = healthConditions(unhealthy(reason("disk-full", "gateway"), reason("disk-full", "worker")));
    expect(headline(found)).toBe("The disk is full");
    expect(new Set(found.map(({ key }) => key)).size).toBe(2);
  });
});
