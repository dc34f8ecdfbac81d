import { describe, expect, it } from "vitest";
import { nextPage } from "../../src/api/paging";

describe("the next page of a list", () => {
  it.each([
    ['</a?after=x>; rel="next"', "/a?after=x"],
    ['</a>; rel="first", </b,c>; rel=next', "/b,c"],
    ['</a>; rel="prev"', null],
    [null, null],
  ])("in %j is %j", (header, address) => {
    expect(nextPage(header)).toBe(address);
  });
});
