import { describe, expect, it } from "vitest";
import { formatRoute, parseRoute, redirect } from "../src/router";

describe("the address", () => {
  it.each([
    { page: "streams" },
    { page: "stream", reference: "turbine.t07/blade 1#ü%" },
    { page: "policies" },
    { page: "policy", reference: "voice" },
    { page: "dead-letters" },
    { page: "alarms" },
    { page: "alarm", reference: "turbine.t07:condition:01234567:41" },
  ] as const)("of %j leads back to it", (route) => {
    expect(parseRoute(formatRoute(route))).toEqual(route);
  });

  it.each(["", "#", "#/", "#/streams", "#/streams/", "#/streams?q=a"])("%j shows the streams", (hash) => {
    expect(parseRoute(hash)).toEqual({ page: "streams" });
  });

  it.each(["#/nowhere", "#nowhere", "#/stream/", "#/stream", "#/streams/a", "#/alarms/x/y", "#/%zz", "#/STREAMS"])(
    "%j is not a page",
    (hash) => {
      expect(parseRoute(hash)).toEqual({ page: "unknown", address: hash });
    },
  );

  it("may have a query", () => {
    expect(parseRoute("#/alarms?state=active")).toEqual({ page: "alarms" });
    expect(parseRoute("#/stream/a%3Fb?at=now")).toEqual({ page: "stream", reference: "a?b" });
  });

  it("redirects former names, and only those", () => {
    expect(parseRoute("#/refused")).toEqual({ page: "dead-letters" });
    expect(redirect("#/refused?kind=malformed")).toBe("#/dead-letters");
    expect(["#/dead-letters", "#/refused/x", "#/refusedly", "#/streams", ""].map(redirect)).toEqual([
      null,
      null,
      null,
      null,
      null,
    ]);
  });

  it("may be typed by hand", () => {
    expect(parseRoute("#/stream/turbine.t07:100%")).toEqual({
      page: "stream",
      reference: "turbine.t07:100%",
    });
  });
});
