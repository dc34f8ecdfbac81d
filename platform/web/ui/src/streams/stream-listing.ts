// The list of streams, as far as it was read: the part in view is read again, further pages on demand.

import type { Page } from "../api/paging";
import type { StreamSummary } from "../api/types";

/** Entries that one request brings. */
export const PAGE_ENTRIES = 100;
/** Entries before and after those in view that are kept up to date. */
const MARGIN = 10;
/** Most entries that the browser keeps; a filter finds the others. */
const MAX_ENTRIES = 10_000;

export interface Range {
  /** Index of the first entry in view, and of the one after the last. */
  readonly first: number;
  readonly last: number;
}

type Read = (after: string, limit: number, words: string) => Promise<Page<StreamSummary>>;

/** By code points, as the server orders references. */
export function compareReferences(one: string, other: string): number {
  const [a, b] = [[...one], [...other]];
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const difference = a[i]!.codePointAt(0)! - b[i]!.codePointAt(0)!;
    if (difference) return difference;
  }
  return a.length - b.length;
}

/** Whether the reference and the policy of a stream contain each of `words`; case does not matter. */
export function matchesWords({ reference, policy }: StreamSummary, words: readonly string[]): boolean {
  const text = `${reference} ${policy ?? ""}`.toLowerCase();
  return words.every((word) => text.includes(word.toLowerCase()));
}

export class StreamListing {
  /** The entries that were read, in order; null before. */
  entries: readonly StreamSummary[] | null = null;
  /** The number of streams, read or not. */
  matching = 0;
  /** Whether there are more than `entries`. */
  more = false;

  readonly #read: Read;
  #words = "";
  #round = 0;
  #loading: Promise<void> | null = null;

  constructor(read: Read) {
    this.#read = read;
  }

  /** Reads the entries of `range` again, and returns them. */
  async refresh({ first, last }: Range): Promise<readonly StreamSummary[]> {
    const round = this.#round;
    const known = this.entries ?? [];
    const begin = Math.max(0, Math.min(first, known.length) - MARGIN);
    const after = known[begin - 1]?.reference ?? "";
    const limit = Math.max(PAGE_ENTRIES, Math.min(last, known.length) + MARGIN - begin);
    const page = await this.#read(after, limit, this.#words);
    if (round === this.#round) this.#take(after, page);
    return page.entries;
  }

  /** Reads the next page, if there is one and it is not being read. */
  async readMore(): Promise<void> {
    if (!this.more || this.#loading || (this.entries?.length ?? 0) >= MAX_ENTRIES) return;
    const round = this.#round;
    const after = this.entries?.at(-1)?.reference ?? "";
    this.#loading = this.#read(after, PAGE_ENTRIES, this.#words).then((page) => {
      if (round === this.#round) this.#take(after, page);
    });
    try {
      await this.#loading;
    } finally {
      this.#loading = null;
    }
  }

  /** Lists the streams whose references contain each of `words` from now on, "" for all; false if it does already. */
  search(words: string): boolean {
    if (words === this.#words) return false;
    this.#words = words;
    this.#round += 1;
    this.entries = null;
    this.matching = 0;
    this.more = false;
    return true;
  }

  /** `page` replaces the entries after `after`, up to its last entry, or to the end if it is the last page. */
  #take(after: string, page: Page<StreamSummary>): void {
    const known = this.entries ?? [];
    const end = page.next !== null ? page.entries.at(-1)?.reference : undefined;
    const before = after ? known.filter(({ reference }) => compareReferences(reference, after) <= 0) : [];
    const behind =
      end === undefined ? [] : known.filter(({ reference }) => compareReferences(reference, end) > 0);
    this.entries = [...before, ...page.entries, ...behind];
    this.matching = page.matching ?? this.entries.length;
    if (behind.length === 0) this.more = page.next !== null;
  }
}
