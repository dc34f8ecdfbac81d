// Lists come in pages; a Link header names the next one (RFC 8288).

/** A part of a list. */
export interface Page<Entry> {
  entries: Entry[];
  /** The address of the next page; null if this one is the last. */
  next: string | null;
  /** Entries on all pages; null if the server does not say it. */
  matching: number | null;
}

export async function readPage<Entry>(response: Response, address: string): Promise<Page<Entry>> {
  const next = nextPage(response.headers.get("Link"));
  const matching = response.headers.get("Windvane-Matching");
  return {
    entries: (await response.json()) as Entry[],
    next: next === null ? null : new URL(next, address).href,
    matching: matching === null ? null : Number(matching),
  };
}

/** The address of `rel="next"` in a Link header; null if there is none. */
export function nextPage(header: string | null): string | null {
  for (const part of header?.split(/,(?=\s*<)/) ?? []) {
    const match = /^\s*<([^>]*)>\s*;.*\brel="?next"?/.exec(part);
    if (match) return match[1]!;
  }
  return null;
}
