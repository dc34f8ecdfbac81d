"""What an Avro schema of a policy means, as plainly as it can be said: no msgspec, no bytes, value by value.

A str that is not UTF-8 on the wire has surrogates here (`unicode_errors="surrogateescape"`).
"""

from typing import Any


def is_valid(value: Any, schema: Any, *, surplus_allowed: bool, bounds: dict[str, Any] | None = None) -> bool:
    bounds = bounds or {}
    if isinstance(schema, list):
        return any(
            is_valid(value, branch, surplus_allowed=surplus_allowed, bounds=bounds) for branch in schema
        )
    if isinstance(schema, str):
        schema = {"type": schema}
    bounds = {**bounds, **schema}
    match schema["type"]:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "int":
            return is_integer(value) and -(2**31) <= value < 2**31 and is_within(value, bounds)
        case "long":
            return is_integer(value) and -(2**63) <= value < 2**63 and is_within(value, bounds)
        case "float" | "double":
            return (is_integer(value) or isinstance(value, float)) and is_within(float(value), bounds)
        case "string":
            return is_utf8(value) and len(value) <= bounds.get("maxLength", len(value))
        case "bytes":
            return is_bytes(value) and length_in_bytes(value) <= bounds.get(
                "maxLength", length_in_bytes(value)
            )
        case "fixed":
            return is_bytes(value) and length_in_bytes(value) == schema["size"]
        case "enum":
            return isinstance(value, str) and value in schema["symbols"]
        case "array":
            return isinstance(value, list) and all(
                is_valid(item, schema["items"], surplus_allowed=surplus_allowed) for item in value
            )
        case "map":
            return isinstance(value, dict) and all(
                is_utf8(key) and is_valid(item, schema["values"], surplus_allowed=surplus_allowed)
                for key, item in value.items()
            )
        case "record":
            return isinstance(value, dict) and is_valid_record(value, schema, surplus_allowed=surplus_allowed)
    raise ValueError(schema)


def is_valid_record(record: dict[Any, Any], schema: Any, *, surplus_allowed: bool) -> bool:
    fields = {field["name"]: field for field in schema["fields"]}
    for key in record:
        if not isinstance(key, str) or (key not in fields and not surplus_allowed):
            return False
    for name, field in fields.items():
        if name not in record:
            if "default" not in field:
                return False
        elif not is_valid(
            record[name], field["type"], surplus_allowed=surplus_allowed, bounds=field_bounds(field)
        ):
            return False
    return True


def field_bounds(field: Any) -> dict[str, Any]:
    return {name: field[name] for name in ("minimum", "maximum", "maxLength") if name in field}


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_within(value: float, bounds: dict[str, Any]) -> bool:
    if "minimum" in bounds and not value >= bounds["minimum"]:
        return False
    return not ("maximum" in bounds and not value <= bounds["maximum"])


def is_utf8(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | str)


def length_in_bytes(value: bytes | str) -> int:
    return len(value.encode("utf-8", "surrogateescape")) if isinstance(value, str) else len(value)
