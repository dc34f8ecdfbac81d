"""The tree of a schema as the types that msgspec decodes into.

null → None              enum → Literal            record → Struct, keys typed str
boolean → bool           array → list              union → of these
int, long → int in range map → dict[str, …]        bytes, fixed → Raw, whose head is looked at after
float, double → float (takes integers)             the decode (`schema_bytes`): bin and str are both taken
"""

from functools import reduce
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from ...store.catalog import policy_schema as avro


class TypeCompiler:
    """From the tree of a schema to msgspec's types; a type that is named several times is made once."""

    def __init__(self, *, surplus: Literal["refuse", "allow"]) -> None:
        self._forbid_unknown_fields = surplus == "refuse"
        self._made: dict[int, Any] = {}

    def type_of(self, node: avro.Type) -> Any:
        """The type for `node`. Raises TypeError."""
        made = self._made.get(id(node))
        if made is None:
            made = self._made[id(node)] = self._make(node)
        return made

    def _make(self, node: avro.Type) -> Any:
        match node:
            case avro.Null():
                return None
            case avro.Boolean():
                return bool
            case avro.Integer(minimum, maximum):
                return Annotated[int, Meta(ge=minimum, le=maximum)]
            case avro.Number(low, high):
                return float if low is None and high is None else Annotated[float, Meta(ge=low, le=high)]
            case avro.Text(max_length):
                return str if max_length is None else Annotated[str, Meta(max_length=max_length)]
            case avro.Bytes():
                return Raw
            case avro.Enum(symbols):
                return Literal[symbols]
            case avro.Array(items):
                return list[self.type_of(items)]  # type: ignore[misc]
            case avro.Map(values):
                return dict[str, self.type_of(values)]  # type: ignore[misc]
            case avro.Record():
                return self._struct(node)
            case avro.Union(branches):
                if any(isinstance(branch, avro.Bytes) for branch in branches):
                    return Raw
                return reduce(
                    lambda one, other: one | other, map(self.type_of, branches[1:]), self.type_of(branches[0])
                )
        raise TypeError(node)

    def _struct(self, node: avro.Record) -> Any:
        fields: list[Any] = []
        names: dict[str, str] = {}
        for i, field in sorted(enumerate(node.fields), key=lambda each: not each[1].required):
            attribute = attribute_of(i)
            names[attribute] = field.name
            kind = self.type_of(field.type)
            fields.append((attribute, kind) if field.required else (attribute, kind, None))
        return msgspec.defstruct(
            "Record", fields, rename=names, gc=False, forbid_unknown_fields=self._forbid_unknown_fields
        )


def attribute_of(index: int) -> str:
    """A field's name may be none that Python takes: its place names the attribute."""
    return f"f{index}"
