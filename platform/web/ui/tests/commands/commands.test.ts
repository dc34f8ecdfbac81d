import { describe, expect, it } from "vitest";
import {
  createPolicyCommand,
  fluentdConfiguration,
  pythonExample,
  shellWord,
  windvaneCommand,
} from "../../src/commands/commands";
import { receiver } from "../../src/commands/installation";

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
