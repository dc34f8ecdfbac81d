import { describe, expect, it } from "vitest";
import type { StreamPage, StreamSummary } from "../../src/api/api";
import { PAGE_ENTRIES, StreamPages, compareReferences, matchesWords } from "../../src/streams/stream-pages";

/** A server of these streams, which counts what it is asked for. */
function server(references: string[]) {
  const asked: { after: string; limit: number; words: string }[] = [];
  const read = (after: string, limit: number, words: string): Promise<StreamPage> => {
    asked.push({ after, limit, words });
    const all = references.filter((each) => each.includes(words)).sort(compareReferences);
    const found = all.filter((each) => compareReferences(each, after) > 0);
    const entries = found.slice(0, limit).map((reference) => ({ reference }) as StreamSummary);
    return Promise.resolve({ entries, more: found.length > limit, matching: all.length });
  };
  return { asked, read };
}

const numbered = (count: number): string[] =>
  Array.from({ length: count }, (_, at) => `s${String(at).padStart(5, "0")}`);
const START = { first: 0, last: 20 };
const shown = (pages: StreamPages): string[] => (pages.entries ?? []).map(({ reference }) => reference);

describe("a list of 3,500 streams", () => {
  it("is read page by page, as far as somebody looks", async () => {
    const references = numbered(3500);
    const { asked, read } = server(references);
    const pages = new StreamPages(read);
    await pages.refresh(START);
    expect(shown(pages)).toEqual(references.slice(0, PAGE_ENTRIES));
    expect([pages.matching, pages.more, asked.length]).toEqual([3500, true, 1]);
    while (pages.more) await pages.readMore();
    expect(shown(pages)).toEqual(references);
    expect(asked.length).toBe(35);
  });

  it("costs one page at each poll, wherever it is looked at", async () => {
    const references = numbered(3500);
    const { asked, read } = server(references);
    const pages = new StreamPages(read);
    await pages.refresh(START);
    while (pages.more) await pages.readMore();
    asked.length = 0;
    const window = await pages.refresh({ first: 2000, last: 2025 });
    expect(asked).toEqual([{ after: references[1989], limit: PAGE_ENTRIES, words: "" }]);
    expect(window.map(({ reference }) => reference)).toEqual(references.slice(1990, 2090));
    expect(shown(pages)).toEqual(references);
    await pages.refresh({ first: 3490, last: 3510 });
    expect(shown(pages)).toEqual(references);
    expect(pages.more).toBe(false);
  });

  it("reads a page once, however often the end is seen", async () => {
    const { asked, read } = server(numbered(300));
    const pages = new StreamPages(read);
    await pages.refresh(START);
    await Promise.all([pages.readMore(), pages.readMore(), pages.readMore()]);
    expect(asked.length).toBe(2);
  });
});

describe("a list that changes", () => {
  it("has new streams in their places, and drops those that are gone", async () => {
    const references = numbered(250);
    const { read } = server(references);
    const pages = new StreamPages(read);
    await pages.refresh(START);
    while (pages.more) await pages.readMore();
    references.splice(3, 2, "s00003x");
    references.push("s00099x", "t");
    await pages.refresh(START);
    await pages.refresh({ first: 95, last: 110 });
    await pages.refresh({ first: 240, last: 260 });
    expect(shown(pages)).toEqual([...references].sort(compareReferences));
    references.length = 0;
    await pages.refresh(START);
    expect([shown(pages), pages.more, pages.matching]).toEqual([[], false, 0]);
  });

  it("loses no stream that moves over the end of a page", async () => {
    const references = numbered(101);
    const { read } = server(references);
    const pages = new StreamPages(read);
    await pages.refresh(START);
    references.push("s00000x");
    await pages.refresh(START);
    while (pages.more) await pages.readMore();
    expect(shown(pages)).toEqual([...references].sort(compareReferences));
  });
});

describe("a search", () => {
  it("asks the server, and forgets answers to the question before", async () => {
    const { asked, read } = server([...numbered(200), "blade"]);
    const pages = new StreamPages(read);
    const late = pages.refresh(START);
    expect(pages.search("blade")).toBe(true);
    await late;
    expect(pages.entries).toBeNull();
    await pages.refresh(START);
    expect([shown(pages), pages.matching, pages.more]).toEqual([["blade"], 1, false]);
    expect(asked.at(-1)!.words).toBe("blade");
    expect(pages.search("blade")).toBe(false);
  });
});

it("words are looked for in the reference and in the policy", () => {
  const stream = { reference: "park.T07.blade", policy: "Vibration" } as StreamSummary;
  expect(matchesWords(stream, ["t07", "VIB"])).toBe(true);
  expect(matchesWords(stream, ["t07", "tower"])).toBe(false);
  expect(matchesWords({ ...stream, policy: null }, [])).toBe(true);
});

it("references are ordered as the server orders them", () => {
  const references = ["a", "a.b", "A", "\u{1f600}", "\uffee", "", "b"];
  expect(references.sort(compareReferences)).toEqual(["", "A", "a", "a.b", "b", "\uffee", "\u{1f600}"]);
});
