import { describe, expect, it } from "vitest";
import type { Page } from "../../src/api/paging";
import type { StreamSummary } from "../../src/api/types";
import { PAGE_ENTRIES, StreamListing, compareReferences, matchesWords } from "../../src/streams/stream-listing";

/** A server of these streams, which keeps the requests. */
function server(references: string[]) {
  const asked: { after: string; limit: number; words: string }[] = [];
  const read = (after: string, limit: number, words: string): Promise<Page<StreamSummary>> => {
    asked.push({ after, limit, words });
    const all = references.filter((each) => each.includes(words)).sort(compareReferences);
    const found = all.filter((each) => compareReferences(each, after) > 0);
    const entries = found.slice(0, limit).map((reference) => ({ reference }) as StreamSummary);
    return Promise.resolve({ entries, next: found.length > limit ? "/next" : null, matching: all.length });
  };
  return { asked, read };
}

const numbered = (count: number): string[] =>
  Array.from({ length: count }, (_, at) => `s${String(at).padStart(5, "0")}`);
const START = { first: 0, last: 20 };
const shown = (listing: StreamListing): string[] => (listing.entries ?? []).map(({ reference }) => reference);

describe("a list of 3,500 streams", () => {
  it("is read page by page, as far as it is viewed", async () => {
    const references = numbered(3500);
    const { asked, read } = server(references);
    const listing = new StreamListing(read);
    await listing.refresh(START);
    expect(shown(listing)).toEqual(references.slice(0, PAGE_ENTRIES));
    expect([listing.matching, listing.more, asked.length]).toEqual([3500, true, 1]);
    while (listing.more) await listing.readMore();
    expect(shown(listing)).toEqual(references);
    expect(asked.length).toBe(35);
  });

  it("costs one page at each poll, whichever part is in view", async () => {
    const references = numbered(3500);
    const { asked, read } = server(references);
    const listing = new StreamListing(read);
    await listing.refresh(START);
    while (listing.more) await listing.readMore();
    asked.length = 0;
    const window = await listing.refresh({ first: 2000, last: 2025 });
    expect(asked).toEqual([{ after: references[1989], limit: PAGE_ENTRIES, words: "" }]);
    expect(window.map(({ reference }) => reference)).toEqual(references.slice(1990, 2090));
    expect(shown(listing)).toEqual(references);
    await listing.refresh({ first: 3490, last: 3510 });
    expect(shown(listing)).toEqual(references);
    expect(listing.more).toBe(false);
  });

  it("reads a page once, however often the end comes into view", async () => {
    const { asked, read } = server(numbered(300));
    const listing = new StreamListing(read);
    await listing.refresh(START);
    await Promise.all([listing.readMore(), listing.readMore(), listing.readMore()]);
    expect(asked.length).toBe(2);
  });
});

describe("a list that changes", () => {
  it("has new streams in their places, and drops those that are gone", async () => {
    const references = numbered(250);
    const { read } = server(references);
    const listing = new StreamListing(read);
    await listing.refresh(START);
    while (listing.more) await listing.readMore();
    references.splice(3, 2, "s00003x");
    references.push("s00099x", "t");
    await listing.refresh(START);
    await listing.refresh({ first: 95, last: 110 });
    await listing.refresh({ first: 240, last: 260 });
    expect(shown(listing)).toEqual([...references].sort(compareReferences));
    references.length = 0;
    await listing.refresh(START);
    expect([shown(listing), listing.more, listing.matching]).toEqual([[], false, 0]);
  });

  it("loses no stream that moves over the end of a page", async () => {
    const references = numbered(101);
    const { read } = server(references);
    const listing = new StreamListing(read);
    await listing.refresh(START);
    references.push("s00000x");
    await listing.refresh(START);
    while (listing.more) await listing.readMore();
    expect(shown(listing)).toEqual([...references].sort(compareReferences));
  });
});

describe("a search", () => {
  it("asks the server, and forgets answers to the question before", async () => {
    const { asked, read } = server([...numbered(200), "blade"]);
    const listing = new StreamListing(read);
    const late = listing.refresh(START);
    expect(listing.search("blade")).toBe(true);
    await late;
    expect(listing.entries).toBeNull();
    await listing.refresh(START);
    expect([shown(listing), listing.matching, listing.more]).toEqual([["blade"], 1, false]);
    expect(asked.at(-1)!.words).toBe("blade");
    expect(listing.search("blade")).toBe(false);
  });
});

it("words are matched with the reference and the policy", () => {
  const stream = { reference: "park.T07.blade", policy: "Vibration" } as StreamSummary;
  expect(matchesWords(stream, ["t07", "VIB"])).toBe(true);
  expect(matchesWords(stream, ["t07", "tower"])).toBe(false);
  expect(matchesWords({ ...stream, policy: null }, [])).toBe(true);
});

it("references are ordered as the server orders them", () => {
  const references = ["a", "a.b", "A", "\u{1f600}", "\uffee", "", "b"];
  expect(references.sort(compareReferences)).toEqual(["", "A", "a", "a.b", "b", "\uffee", "\u{1f600}"]);
});
