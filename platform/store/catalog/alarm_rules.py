"""The alarm rules of a policy: when rows raise an alarm. `condition` steps raise alarms without a rule."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from ...errors import PolicyInvalid
from .policy_wording import NAME, check_keys, kind_of, meant, plain_value

CONDITION = "condition"
"""The operation whose grades raise alarms without a rule."""
MAX_RULES = 100

Side = Literal["above", "below"]
_Name = Annotated[str, Meta(pattern=NAME)]


class AlarmRule(Struct, frozen=True):
    """When the values of one column raise an alarm.

    `column` is one of the step `output`, by name or by the last part of it ("rms" is that of every channel,
    and the worst of them counts). A level is reached where `hold_rows` values in a row are at it or beyond,
    and left where as many are back behind it by more than `hysteresis`. `name` tells the rule's alarms from
    others of the stream, by default that of the output.
    """

    output: _Name
    column: Annotated[str, Meta(min_length=1, max_length=200)]
    name: _Name = ""
    warning: float | None = None
    danger: float | None = None
    side: Side = "above"
    hysteresis: Annotated[float, Meta(ge=0)] = 0.0
    hold_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 3

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.output)


def plain_rules(rules: Any) -> list[dict[str, Any]]:
    """Read the tables of a policy's `alarm`. Raises PolicyInvalid, also for unknown settings."""
    if not isinstance(rules, Sequence) or isinstance(rules, str | bytes):
        raise PolicyInvalid(f"alarm: is a list of tables ([[alarm]] in TOML), not {kind_of(rules)}")
    if len(rules) > MAX_RULES:
        raise PolicyInvalid(f"alarm: has {len(rules)} rules, at most {MAX_RULES} are allowed")
    for i, rule in enumerate(rules):
        if not isinstance(rule, Mapping):
            raise PolicyInvalid(
                f"alarm[{i}]: is a table with `output`, `column` and levels, not {kind_of(rule)}"
            )
        check_keys(rule, f"alarm[{i}]", AlarmRule.__struct_fields__)
        for name, value in rule.items():
            plain_value(value, f"alarm[{i}].{name}")
        for name in ("output", "column"):
            if name not in rule:
                raise PolicyInvalid(f"alarm[{i}].{name}: is missing, which says what is to be judged")
        side = rule.get("side", "above")
        if isinstance(side, str) and side not in get_args(Side):
            raise PolicyInvalid(f"alarm[{i}].side: {side[:60]!r} is not known{meant(side, get_args(Side))}")
    return [dict(rule) for rule in rules]


def check_alarm_rules(
    rules: Sequence[AlarmRule], *, kept: Collection[str], conditions: Collection[str]
) -> None:
    """Raises PolicyInvalid if a rule cannot raise an alarm, or duplicates the alarm of another rule.

    `kept` names the steps whose rows are kept, `conditions` those that raise alarms without a rule.
    """
    names = {step: f'the step "{step}"' for step in conditions}
    for i, rule in enumerate(rules):
        if rule.output not in kept:
            raise PolicyInvalid(
                f'alarm[{i}].output: "{rule.output}" must be a step whose rows are kept; there are '
                f"{', '.join(sorted(kept)) or 'none'}"
            )
        if rule.warning is None and rule.danger is None:
            raise PolicyInvalid(f"alarm[{i}]: has no level; give it `warning`, `danger`, or both")
        if rule.warning is not None and rule.danger is not None:
            further = rule.danger - rule.warning if rule.side == "above" else rule.warning - rule.danger
            if further <= 0:
                raise PolicyInvalid(
                    f"alarm[{i}].danger: is {rule.danger:g}, and must be {rule.side} warning, which is "
                    f'{rule.warning:g}; `side` says which way is worse, "above" or "below"'
                )
        if rule.name in names:
            raise PolicyInvalid(
                f'alarm[{i}].name: "{rule.name}" is that of {names[rule.name]} too; names tell the alarms '
                "of a stream apart: give it another `name`"
            )
        names[rule.name] = f"alarm[{i}]"


def rule_to_mapping(rule: AlarmRule) -> dict[str, Any]:
    """The inverse: a table that JSON and TOML can represent."""
    # TOML has no null.
    return {name: value for name, value in msgspec.structs.asdict(rule).items() if value is not None}
