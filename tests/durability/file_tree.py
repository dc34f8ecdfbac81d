"""A file system rebuilt from the record of its steps: directories, files, databases."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

ROOT = 0
"""The node of the directory that is recorded."""

Kind: TypeAlias = Literal[
    "create",
    "mkdir",
    "rename",
    "exchange",
    "link",
    "unlink",
    "rmdir",
    "write",
    "store",
    "truncate",
    "fsync",
    "fdatasync",
    "sync directory",
    "syncfs",
    "commit",
    "ack",
    "mark",
]

NAMES: frozenset[Kind] = frozenset({"create", "mkdir", "rename", "exchange", "link", "unlink", "rmdir"})
"""Steps that change a directory."""
DATA: frozenset[Kind] = frozenset({"write", "store", "truncate"})
"""Steps that change the content of a file; `store` writes through a mapping."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, at `path` below the recorded directory.

    `node` is the file (or directory) itself, whatever its name. Of a step in NAMES, `parent` is the directory
    that has the name; of a rename, exchange or link, `target` and `target_parent` are where it appears.
    `data` is the bytes that a write or store puts at `offset`, or the whole database after a commit; `offset`
    of a truncate is the new size. A sync that failed has not `succeeded`; neither has a commit that waits for
    no disk.
    `path` of an ack or a mark is the name that a test gives it.
    """

    kind: Kind
    path: str = ""
    node: int = -1
    parent: int = -1
    target: str = ""
    target_parent: int = -1
    offset: int = 0
    data: bytes = field(default=b"", repr=False)
    succeeded: bool = True

    def __str__(self) -> str:
        if self.kind in ("write", "store"):
            return f"{self.kind} {self.path} {self.offset}+{len(self.data)}"
        if self.kind == "truncate":
            return f"truncate {self.path} to {self.offset}"
        failed = "" if self.succeeded else " (not durable)"
        return f"{self.kind} {self.path}{' to ' + self.target if self.target else ''}{failed}"


class FileTree:
    """Applies steps; skips a step that depends on an earlier, lost one."""

    def __init__(self) -> None:
        self.directories: dict[int, dict[str, int]] = {ROOT: {}}
        self.files: dict[int, bytearray] = {}
        self.databases: dict[str, bytes] = {}

    def apply(self, step: Step) -> None:
        """Changes the tree as the step did."""
        match step.kind:
            case "create":
                self.files.setdefault(step.node, bytearray())
                self._enter(step.parent, step.path, step.node)
            case "mkdir":
                self.directories.setdefault(step.node, {})
                self._enter(step.parent, step.path, step.node)
            case "rename":
                if self.directories.get(step.parent, {}).pop(_name(step.path), None) is not None:
                    self._enter(step.target_parent, step.target, step.node)
            case "exchange":
                one, other = (self.directories.get(each, {}) for each in (step.parent, step.target_parent))
                names = _name(step.path), _name(step.target)
                if names[0] in one and names[1] in other:
                    one[names[0]], other[names[1]] = other[names[1]], one[names[0]]
            case "link":
                self._enter(step.target_parent, step.target, step.node)
            case "unlink" | "rmdir":
                self.directories.get(step.parent, {}).pop(_name(step.path), None)
            case "write" | "store":
                self.put(step.node, step.offset, step.data)
            case "truncate":
                content = self.files.setdefault(step.node, bytearray())
                del content[step.offset :]
                content.extend(bytes(step.offset - len(content)))
            case "commit":
                self.databases[step.path] = step.data
            case _:
                pass

    def put(self, node: int, offset: int, data: bytes) -> None:
        """Writes into a file; the bytes between its end and `offset` become zeros."""
        content = self.files.setdefault(node, bytearray())
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data

    def paths(self) -> dict[str, int]:
        """Returns all reachable nodes: path → node, a directory before its entries."""
        found: dict[str, int] = {}
        waiting = [("", ROOT)]
        while waiting:
            prefix, directory = waiting.pop()
            for name, node in self.directories[directory].items():
                found[prefix + name] = node
                if node in self.directories:
                    waiting.append((f"{prefix}{name}/", node))
        return found

    def write_to(self, directory: Path) -> None:
        """Writes the tree as real files; `directory` must not exist yet."""
        directory.mkdir(parents=True)
        written: dict[int, Path] = {}
        for path, node in self.paths().items():
            if node in self.directories:
                (directory / path).mkdir()
            elif node in written:
                (directory / path).hardlink_to(written[node])
            else:
                written[node] = directory / path
                written[node].write_bytes(self.files[node])
        for path, content in self.databases.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)

    def snapshot(self) -> dict[str, bytes | None]:
        """Path → content, None for a directory: to compare trees."""
        files: dict[str, bytes | None] = {
            path: None if node in self.directories else bytes(self.files[node])
            for path, node in self.paths().items()
        }
        return {**files, **self.databases}

    def _enter(self, directory: int, path: str, node: int) -> None:
        if directory in self.directories:
            self.directories[directory][_name(path)] = node


def _name(path: str) -> str:
    return path.rpartition("/")[2]
