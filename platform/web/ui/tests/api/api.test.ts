import { describe, expect, it } from "vitest";
import { Api } from "../../src/api/api";
import { ApiError } from "../../src/api/api-error";

/** A server that answers by path, and keeps the requests. */
function server(answers: Record<string, () => Response>): { fetcher: typeof fetch; asked: string[] } {
  const asked: string[] = [];
  const fetcher = (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const { pathname, search } = new URL(String(input));
    const method = init?.method ?? "GET";
    asked.push((method === "GET" ? "" : `${method} `) + pathname + search);
    const answer = answers[pathname + search];
    return answer ? Promise.resolve(answer()) : Promise.reject(new TypeError("Failed to fetch"));
  };
  return { fetcher: fetcher as typeof fetch, asked };
}

const json = (body: unknown, init: ResponseInit = {}): Response => new Response(JSON.stringify(body), init);

describe("the API client", () => {
  it("finds the API next to the page, whatever its path, query and hash", async () => {
    const { fetcher, asked } = server({ "/park/api/v1/status": () => json({ gateway: null, worker: null }) });
    await new Api("http://host/park/?token=x#/streams", fetcher).status();
    expect(asked).toEqual(["/park/api/v1/status"]);
  });

  it("quotes references", async () => {
    const { fetcher, asked } = server({ "/api/v1/arrays/a%2Fb%3Aspectrum": () => json({}) });
    await new Api("http://host/", fetcher).array("a/b:spectrum");
    expect(asked).toEqual(["/api/v1/arrays/a%2Fb%3Aspectrum"]);
  });

  it("reads a list to its last page", async () => {
    const { fetcher } = server({
      "/api/v1/policies?limit=1000": () =>
        json([{ reference: "a" }], { headers: { Link: '</api/v1/policies?limit=1000&after=a>; rel="next"' } }),
      "/api/v1/policies?limit=1000&after=a": () => json([{ reference: "b" }]),
    });
    const policies = await new Api("http://host/", fetcher).policies();
    expect(policies.map(({ reference }) => reference)).toEqual(["a", "b"]);
  });

  it("reads one page of the streams, and the address of the next", async () => {
    const { fetcher } = server({
      "/api/v1/streams?limit=2": () =>
        json([{ reference: "a" }], {
          headers: { Link: '</api/v1/streams?limit=2&after=a>; rel="next"', "Windvane-Matching": "3" },
        }),
      "/api/v1/streams?limit=2&after=a+b%26&q=x+y": () => json([]),
    });
    const api = new Api("http://host/", fetcher);
    expect(await api.streams("", 2)).toEqual({ entries: [{ reference: "a" }], next: "http://host/api/v1/streams?limit=2&after=a", matching: 3 });
    expect(await api.streams("a b&", 2, "x y")).toEqual({ entries: [], next: null, matching: null });
  });

  it("reads the 503 of an unhealthy installation, and not the 503 of a proxy", async () => {
    const unhealthy = { status: "unhealthy", reasons: [{ tier: "worker", code: "disk-full", detail: "0 B" }] };
    const asJson = { status: 503, headers: { "Content-Type": "application/json; charset=utf-8" } };
    const answers = [
      () => json(unhealthy, asJson),
      () => json({ status: "ok" }),
      () => new Response("<html>", { status: 503, headers: { "Content-Type": "text/html" } }),
    ];
    const { fetcher } = server({ "/api/v1/health": () => answers.shift()!() });
    const api = new Api("http://host/", fetcher);
    expect(await api.health()).toEqual(unhealthy);
    expect(await api.health()).toEqual({ status: "ok" });
    await expect(api.health()).rejects.toMatchObject({ status: 503 });
  });

  it("reports a missing token", async () => {
    const { fetcher } = server({ "/api/v1/status": () => json({ title: "Unauthorized" }, { status: 401 }) });
    const api = new Api("http://host/", fetcher);
    let calls = 0;
    api.onUnauthorized = () => (calls += 1);
    await expect(api.status()).rejects.toThrow("Unauthorized");
    expect(calls).toBe(1);
  });

  it("gives the detail of a problem document, and its own message otherwise", async () => {
    const { fetcher } = server({
      "/api/v1/streams/a": () => json({ title: "Not Found", detail: "no stream called a" }, { status: 404 }),
      "/api/v1/streams/b": () => new Response("<html>", { status: 502 }),
    });
    const api = new Api("http://host/", fetcher);
    await expect(api.stream("a")).rejects.toMatchObject({ status: 404, message: "no stream called a" });
    await expect(api.stream("b")).rejects.toMatchObject({ status: 502, message: "Status 502" });
    await expect(api.stream("c")).rejects.toBeInstanceOf(ApiError);
  });

  it("replays and discards dead letters, and gives the reason for a failure", async () => {
    const { fetcher, asked } = server({
      "/api/v1/dead-letters/7": () => new Response(null, { status: 204 }),
      "/api/v1/dead-letters/7/replay": () => new Response(null, { status: 204 }),
      "/api/v1/dead-letters/8/replay": () => json({ detail: "rejected again" }, { status: 422 }),
    });
    const api = new Api("http://host/", fetcher);
    await api.replayDeadLetter(7);
    await api.dropDeadLetter(7);
    expect(asked).toEqual(["POST /api/v1/dead-letters/7/replay", "DELETE /api/v1/dead-letters/7"]);
    await expect(api.replayDeadLetter(8)).rejects.toMatchObject({ status: 422, message: "rejected again" });
  });

  it("uses the server's clock if the machine's clock is wrong", async () => {
    const ahead_ms = 3_600_000;
    const { fetcher } = server({
      "/api/v1/status": () => json({}, { headers: { Date: new Date(Date.now() + ahead_ms).toUTCString() } }),
    });
    const api = new Api("http://host/", fetcher);
    await api.status();
    expect(Math.abs(api.now_ms() - Date.now() - ahead_ms)).toBeLessThan(2000);
  });
});

describe("an action on an alarm", () => {
  it("goes to the server as JSON", async () => {
    const asked: [string, RequestInit | undefined][] = [];
    const fetcher = (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
      asked.push([String(input), init]);
      return Promise.resolve(new Response("{}"));
    };
    const api = new Api("http://host/", fetcher as typeof fetch);
    await api.actOnAlarm("a:b:0:1", "shelve", { by: "ada", text: "", for_s: 60 });
    const [[address, init]] = asked as [[string, RequestInit]];
    expect(address).toBe("http://host/api/v1/alarms/a%3Ab%3A0%3A1/shelve");
    expect(init.method).toBe("POST");
    expect(init.body).toBe('{"by":"ada","text":"","for_s":60}');
    expect(new Headers(init.headers).get("Content-Type")).toBe("application/json");
  });
});
