"""What a power cut can leave of recorded steps.

The model is that of a journalling file system on Linux:

- The content of a file is stored by the page. Any state of a page since the last sync that covered it may
  have reached the disk; pages are independent of each other, and of names. A page that was never written back
  is missing, or zeros if the file's size was written.
- The names in a directory change in their order; directories are independent of each other. If a name is
  lost, everything below it is lost.
- fsync and fdatasync of a file cover its pages and its size, not its name; a sync of a directory covers the
  names in it; syncfs covers all. A failed sync covers nothing, and marks its pages as clean: they are written
  back only after another write to them.
- The last write may be torn at any byte. A store into a mapping is one word, which is never torn.
- A commit of SQLite with synchronous = FULL is durable at once and whole; with a lower setting, it is durable
  with the next FULL commit.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.durability.file_tree import DATA, NAMES, FileTree, Step

_PAGE_BYTES = 4096
_SIZE = -1
"""Stands for a page: what a truncate changes."""
_NEVER = 1 << 60

Keep = Callable[[int, int], bool]
"""Whether the change of step i to page p survives."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One outcome of a power cut after `stop` steps."""

    stop: int
    how: str
    tree: FileTree


class PowerCut:
    """Every outcome of a power cut, for every prefix of `steps`."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self._durable_from: list[dict[int, int]] = [{} for _ in steps]  # by page, else by _SIZE
        self._find_durable()

    def _find_durable(self) -> None:
        pages: defaultdict[tuple[int, int], list[int]] = defaultdict(list)  # uncovered steps
        dirty: defaultdict[int, set[int]] = defaultdict(set)
        names: list[int] = []
        commits: list[int] = []

        def cover(node: int, at: int) -> None:
            for page in dirty.pop(node, ()):
                for index in pages.pop((node, page)):
                    self._durable_from[index][page] = at

        for at, step in enumerate(self.steps):
            if step.kind in DATA:
                for page, _, _ in _pieces(step):
                    pages[step.node, page].append(at)
                    dirty[step.node].add(page)
                    self._durable_from[at][page] = _NEVER
            elif step.kind in NAMES:
                names.append(at)
                self._durable_from[at][_SIZE] = _NEVER
            elif step.kind == "commit":
                commits.append(at)
                self._durable_from[at][_SIZE] = _NEVER
                if step.succeeded:
                    self._cover_sizes(commits, at)
            elif step.kind in ("fsync", "fdatasync", "syncfs"):
                nodes = list(dirty) if step.kind == "syncfs" else [step.node]
                for node in nodes:
                    if step.succeeded:
                        cover(node, at)
                    else:
                        dirty.pop(node, None)
                if step.kind == "syncfs" and step.succeeded:
                    self._cover_sizes(names, at)
            elif step.kind == "sync directory" and step.succeeded:
                inside = [index for index in names if step.node in _directories(self.steps[index])]
                names = [index for index in names if index not in inside]
                self._cover_sizes(inside, at)

    def _cover_sizes(self, indices: list[int], at: int) -> None:
        """Marks the changes of steps to names and sizes as durable from step `at`; empties the list."""
        for index in indices:
            self._durable_from[index][_SIZE] = at
        indices.clear()

    def uncovered(self, stop: int) -> list[int]:
        """Returns the steps before `stop` that a power cut at `stop` may lose."""
        return [i for i in range(stop) if any(at >= stop for at in self._durable_from[i].values())]

    def tree(
        self, stop: int, keep: Keep, *, torn_bytes: int | None = None, sizes_survive: bool = False
    ) -> FileTree:
        """Returns the remains of the first `stop` steps; `keep` decides about steps that are not durable.

        The last one, a write, keeps only `torn_bytes` bytes. With `sizes_survive` a lost write that extended
        its file leaves zeros.
        """
        tree = FileTree()
        lost: set[tuple[int, int]] = set()
        for index in range(stop):
            step = self.steps[index]
            durable_from = self._durable_from[index]
            torn_at = _NEVER
            if torn_bytes is not None and index == stop - 1:
                torn_at = step.offset + torn_bytes
            if step.kind in DATA and step.kind != "truncate":
                for page, start, end in _pieces(step):
                    is_certain = durable_from[page] < stop
                    place = (step.node, page)
                    if is_certain or (place not in lost and keep(index, page)):
                        if start < torn_at:
                            left = slice(start - step.offset, min(end, torn_at) - step.offset)
                            tree.put(step.node, start, step.data[left])
                        continue
                    lost.add(place)
                    if sizes_survive:
                        held = len(tree.files.get(step.node, b""))
                        tree.put(step.node, held, bytes(max(0, end - held)))
            elif step.kind in DATA or step.kind == "commit":
                if durable_from[_SIZE] < stop or keep(index, _SIZE):
                    tree.apply(step)
            elif step.kind in NAMES:
                places = [(directory, _SIZE) for directory in _directories(step)]
                is_certain = durable_from[_SIZE] < stop
                if is_certain or (lost.isdisjoint(places) and keep(index, _SIZE)):
                    tree.apply(step)
                else:
                    lost.update(places)
        return tree

    def cuts(self, stop: int, *, seed: int, single_losses: int | None = None) -> Iterator[Cut]:
        """Yields the outcomes after `stop` steps: no or all unsynced steps survive; zeros replace them;
        each single step lost alone (or `single_losses` of them, by `seed`); three mixtures, by `seed`; and if
        the last step is a write, a torn one, with and without the others.
        """
        chance = random.Random(f"{seed} {stop}")
        yield Cut(stop, "all unsynced lost", self.tree(stop, lambda i, p: False))
        yield Cut(stop, "all unsynced kept", self.tree(stop, lambda i, p: True))
        yield Cut(stop, "sizes without data", self.tree(stop, lambda i, p: p == _SIZE, sizes_survive=True))
        uncovered = self.uncovered(stop)
        alone = uncovered
        if single_losses is not None and len(uncovered) > single_losses:
            alone = chance.sample(uncovered, single_losses)
        for lost in alone:
            yield Cut(stop, f"lost: {self.steps[lost]}", self.tree(stop, _all_but(lost)))
        for number in range(3 if uncovered else 0):
            mixture = _by_chance(random.Random(f"{seed} {stop} {number}"))
            yield Cut(stop, f"mixture {number}", self.tree(stop, mixture))
        last = self.steps[stop - 1] if stop else None
        if last is not None and last.kind == "write" and len(last.data) > 1:
            for torn in sorted({1, len(last.data) // 2, len(last.data) - 1}):
                kept = self.tree(stop, lambda i, p: True, torn_bytes=torn)
                yield Cut(stop, f"{last} torn after {torn} bytes", kept)
                alone_torn = self.tree(stop, lambda i, p: i == stop - 1, torn_bytes=torn)
                yield Cut(stop, f"{last} torn after {torn} bytes, the rest lost", alone_torn)
            pages = [page for page, _, _ in _pieces(last)]
            for page in pages if len(pages) > 1 else ():
                yield Cut(stop, f"{last} without page {page}", self.tree(stop, _all_but(stop - 1, page)))


def _all_but(lost: int, lost_page: int | None = None) -> Keep:
    return lambda index, page: index != lost or lost_page not in (None, page)


def _by_chance(chance: random.Random) -> Keep:
    return lambda index, page: chance.random() < 0.5


def _pieces(step: Step) -> Iterator[tuple[int, int, int]]:
    """What a step concerns: (page, first byte, byte behind the last), bytes counted in the file."""
    if step.kind == "truncate":
        yield _SIZE, 0, 0
        return
    stop = step.offset + len(step.data)
    for page in range(step.offset // _PAGE_BYTES, -(-stop // _PAGE_BYTES)):
        yield page, max(step.offset, page * _PAGE_BYTES), min(stop, (page + 1) * _PAGE_BYTES)


def _directories(step: Step) -> set[int]:
    return {step.parent, step.target_parent} - {-1}
