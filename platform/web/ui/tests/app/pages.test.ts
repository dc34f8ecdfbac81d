import { describe, expect, it } from "vitest";
import type { ArraySummary, StreamSummary } from "../../src/api/api";
import {
  createPolicyCommand,
  fluentdConfiguration,
  pythonExample,
  shellWord,
  windvaneCommand,
} from "../../src/commands/commands";
import { receiver } from "../../src/commands/installation";
import { firstToShow, isSetAside, outputKind, sortOutputs } from "../../src/charts/outputs";
import { formatRoute, parseRoute } from "../../src/router";

const array = (reference: string, shape: number[], attrs: object, dtype: unknown = "<f4"): ArraySummary =>
  ({ reference, shape, attrs, dtype, start: 0, stream: "a" }) as ArraySummary;

describe("the address", () => {
  it.each([
    { page: "streams" },
    { page: "stream", reference: "turbine.t07/blade 1#ü%" },
    { page: "policies" },
    { page: "policy", reference: "voice" },
    { page: "refused" },
    { page: "alarms" },
    { page: "alarm", reference: "turbine.t07:condition:01234567:41" },
  ] as const)("of %j leads back to it", (route) => {
    expect(parseRoute(formatRoute(route))).toEqual(route);
  });

  it.each(["", "#", "#/", "#/streams", "#/streams/", "#/streams?q=a"])("%j shows the streams", (hash) => {
    expect(parseRoute(hash)).toEqual({ page: "streams" });
  });

  it.each(["#/nowhere", "#nowhere", "#/stream/", "#/stream", "#/streams/a", "#/alarms/x/y", "#/%zz", "#/STREAMS"])(
    "%j is none of the dashboard's",
    (hash) => {
      expect(parseRoute(hash)).toEqual({ page: "unknown", address: hash });
    },
  );

  it("may have a query", () => {
    expect(parseRoute("#/alarms?state=active")).toEqual({ page: "alarms" });
    expect(parseRoute("#/stream/a%3Fb?at=now")).toEqual({ page: "stream", reference: "a?b" });
  });

  it("may be typed by hand", () => {
    expect(parseRoute("#/stream/turbine.t07:100%")).toEqual({
      page: "stream",
      reference: "turbine.t07:100%",
    });
  });
});

describe("an array's picture", () => {
  it("follows from its attributes", () => {
    expect(outputKind(array("a:s", [9, 1025], { frequency_step_hz: 5 }))).toBe("spectrum");
    expect(outputKind(array("a:s", [9, 3, 1025], { frequency_step_hz: 5 }))).toBe("spectrum");
    expect(outputKind(array("a:f", [9, 4], { columns: ["a", "b", "c", "d"] }))).toBe("trend");
    expect(outputKind(array("a:p", [9], { rate_hz: 48000 }))).toBe("samples");
    expect(outputKind(array("a:x", [9, 500, 500], {}))).toBe("other");
    expect(outputKind(array("a:r", [9], {}, [["offset", "<u8"]]))).toBe("other");
  });

  it("comes in the order spectrum, score, trend, samples", () => {
    const sorted = sortOutputs([
      array("a:pcm", [9], {}),
      array("a:features", [9, 1], { columns: ["rms"] }),
      array("a:model", [9, 1], { columns: ["score"], kind: "score" }),
      array("a:spectrum", [9, 5], { frequency_step_hz: 5 }),
    ]);
    expect(sorted.map(({ reference }) => reference)).toEqual([
      "a:spectrum",
      "a:model",
      "a:features",
      "a:pcm",
    ]);
  });

  it("is of the present array, not of one that was set aside", () => {
    expect([isSetAside("a:spectrum~1"), isSetAside("a:spectrum")]).toEqual([true, false]);
  });
});

describe("commands to paste", () => {
  it("survive any reference", () => {
    expect(shellWord("turbine.t07")).toBe("turbine.t07");
    expect(shellWord("it's; rm")).toBe(`'it'\\''s; rm'`);
    expect(createPolicyCommand(null, "t", "turbine.**", "vibration")).toBe(
      "windvane policy create t --tag 'turbine.**' --preset vibration",
    );
    expect(pythonExample(null, 'a"b', undefined)).toContain('context.streams["a\\"b"]');
  });

  it("name the home of the server", () => {
    const installation = { home: "/srv/wind vane", forward: [] };
    expect(windvaneCommand(installation, "ls")).toBe("windvane ls --home '/srv/wind vane'");
    expect(createPolicyCommand(installation, "t", "t", "audio")).toMatch(/ --home '\/srv\/wind vane'$/);
    expect(pythonExample(installation, "a", "a:b")).toContain('connect("/srv/wind vane")');
  });

  it("name the port of the gateway, and a host that can be reached", () => {
    const to = (forward: string[], page: string) => Object.values(receiver({ home: "/", forward }, page));
    expect(to(["127.0.0.1:4711"], "localhost")).toEqual(["127.0.0.1", 4711, false]);
    expect(to(["127.0.0.1:4711"], "park.example")).toEqual(["127.0.0.1", 4711, true]);
    expect(to(["127.0.0.1:4711", "0.0.0.0:4712"], "park.example")).toEqual(["park.example", 4712, false]);
    expect(to(["[::]:4711"], "[fd00::7]")).toEqual(["fd00::7", 4711, false]);
    expect(to(["[fd00::8]:4711"], "park.example")).toEqual(["fd00::8", 4711, false]);
    expect(to(["10.0.0.5:4711"], "127.0.0.1")).toEqual(["10.0.0.5", 4711, false]);
    expect(to(["nonsense"], "park.example")).toEqual(["park.example", 24224, false]);
    expect(Object.values(receiver(null, ""))).toEqual(["localhost", 24224, false]);
    expect(fluentdConfiguration(receiver({ home: "/", forward: ["0.0.0.0:4711"] }, "h"), "a.**")).toContain(
      "host h\n    port 4711\n",
    );
  });
});

describe("the stream to begin with", () => {
  const stream = (reference: string, ...outputs: string[]): StreamSummary =>
    ({ reference, arrays: outputs.map((output) => `${reference}:${output}`) }) as StreamSummary;
  const blade = stream("blade1", "spectrum", "spectrum~1", "spectrum~2");
  const gearbox = stream("gearbox", "features", "spectrum");
  const generator = stream("generator", "features", "spectrum");

  it("has the most outputs, those set aside not counted", () => {
    expect(firstToShow([blade, gearbox, generator], () => true)).toBe(gearbox);
  });

  it("is alive where one is", () => {
    expect(firstToShow([blade, gearbox], (each) => each === blade)).toBe(blade);
    expect(firstToShow([blade, gearbox], () => false)).toBe(gearbox);
  });
});
