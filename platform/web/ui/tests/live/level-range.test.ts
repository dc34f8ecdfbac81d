import { describe, expect, it } from "vitest";
import { AutoLevelRange } from "../../src/live/level-range";

describe("the range of levels", () => {
  const noise = (floor_db: number): Float32Array =>
    Float32Array.from({ length: 1000 }, (_, bin) => floor_db + (bin % 10) + (bin === 500 ? 60 : 0));

  it("spans from the noise to above the highest peak, in steps of 5 dB", () => {
    const auto = new AutoLevelRange();
    auto.add(noise(-98));
    expect(auto.update()).toBe(true);
    expect(auto.range.high_db).toBe(-35);
    expect(auto.range.low_db).toBeGreaterThanOrEqual(-105);
    expect(auto.range.low_db).toBeLessThanOrEqual(-95);
  });

  it("stays where the signal stays", () => {
    const auto = new AutoLevelRange();
    let changes = 0;
    for (let row = 0; row < 50; row++) {
      auto.add(noise(-98 + Math.sin(row)));
      if (auto.update()) changes += 1;
    }
    expect(changes).toBeLessThanOrEqual(3);
  });

  it("widens at once for a louder signal and narrows again after it", () => {
    const auto = new AutoLevelRange();
    auto.add(noise(-98));
    auto.update();
    auto.add(noise(-58));
    auto.update();
    expect(auto.range.high_db).toBe(5);
    for (let row = 0; row < 40; row++) {
      auto.add(noise(-98));
      auto.update();
    }
    expect(auto.range.high_db).toBeLessThan(-15);
  });

  it("does not follow digital silence", () => {
    const auto = new AutoLevelRange();
    auto.add(new Float32Array(100).fill(-400));
    expect(auto.update()).toBe(false);
  });
});
