import { describe, expect, it } from "vitest";
import { stepFailures } from "../../src/status/failures";

describe("failing steps", () => {
  const failure = (stream: string, step: string, time_ms: number, recovered_ns: number | null = null) => ({
    stream,
    step,
    message: `at ${time_ms}`,
    time_ns: time_ms * 1e6,
    times: 1,
    recovered_ns,
  });

  it("are counted once each, with their newest failure, newest first", () => {
    const { failing } = stepFailures([failure("a", "model", 1), failure("b", "model", 2), failure("a", "model", 3)]);
    expect(failing.map(({ stream, message }) => [stream, message])).toEqual([
      ["a", "at 3"],
      ["b", "at 2"],
    ]);
  });

  it("fail until they work again, however long ago they failed", () => {
    const { failing, recovered } = stepFailures([failure("a", "model", 1), failure("b", "model", 0, 7)]);
    expect(failing.map(({ stream }) => stream)).toEqual(["a"]);
    expect(recovered.map(({ stream }) => stream)).toEqual(["b"]);
  });
});
