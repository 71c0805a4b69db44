"""A small JSON Schema validator (draft 2020-12, the words our schemas use); an unknown word is an error."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
REMARKS = {"$schema", "$id", "title", "description", "$defs"}
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def load(verb: str) -> dict[str, Any]:
    """The schema docs/schemas/<verb>.json."""
    schema: dict[str, Any] = json.loads((FOLDER / f"{verb}.json").read_text(encoding="utf-8"))
    return schema


def check(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None, at: str = "$") -> list[str]:
    """All mismatches of a value with a schema, each with its path; an empty list means valid."""
    root = schema if root is None else root
    faults: list[str] = []
    for word, rule in schema.items():
        if word not in REMARKS:
            faults += _word(word, rule, value, schema, root, at)
    return faults


def _word(
    word: str, rule: Any, value: Any, schema: dict[str, Any], root: dict[str, Any], at: str
) -> list[str]:
    if word == "$ref":
        name = rule.removeprefix("#/$defs/")
        return check(value, root["$defs"][name], root, at)
    if word == "type":
        kinds = [rule] if isinstance(rule, str) else rule
        return (
            [] if any(_is(value, kind) for kind in kinds) else [f"{at}: {value!r} is no {' or '.join(kinds)}"]
        )
    if word == "enum":
        return [] if value in rule else [f"{at}: {value!r} is none of {rule}"]
    if word == "const":
        return [] if value == rule else [f"{at}: {value!r} is not {rule!r}"]
    if word in ("minimum", "maximum"):
        sign = 1 if word == "minimum" else -1
        out = _is(value, "number") and sign * value < sign * rule
        return [f"{at}: {value} is beyond the {word} {rule}"] if out else []
    if word in ("minItems", "maxItems"):
        sign = 1 if word == "minItems" else -1
        out = isinstance(value, list) and sign * len(value) < sign * rule
        return [f"{at}: {len(value)} items are beyond {word} {rule}"] if out else []
    if word == "required":
        return [f"{at}: {name} is missing" for name in rule if isinstance(value, dict) and name not in value]
    if word == "properties":
        inside = value.items() if isinstance(value, dict) else ()
        return [
            fault
            for name, part in inside
            if name in rule
            for fault in check(part, rule[name], root, f"{at}.{name}")
        ]
    if word == "additionalProperties":
        others = (
            {n: v for n, v in value.items() if n not in schema.get("properties", {})}
            if isinstance(value, dict)
            else {}
        )
        if rule is False:
            return [f"{at}: {name} is not expected" for name in others]
        return [fault for name, part in others.items() for fault in check(part, rule, root, f"{at}.{name}")]
    if word == "items":
        inside = enumerate(value) if isinstance(value, list) else ()
        return [fault for i, part in inside for fault in check(part, rule, root, f"{at}[{i}]")]
    raise ValueError(f"the validator does not know the word {word!r}")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])
