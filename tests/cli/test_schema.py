"""The little validator finds each kind of mismatch, and every schema uses only words that it knows."""

import json
from typing import Any

import pytest

RULES = {
    "type": "object",
    "required": ["n", "kind"],
    "properties": {
        "n": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["a", "b"]},
        "pair": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"$ref": "#/$defs/share"}},
        "map": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        "ok": {"type": "boolean"},
    },
    "additionalProperties": False,
    "$defs": {"share": {"type": "number", "maximum": 1}},
}
GOOD = {"n": 1, "kind": "a", "pair": [0.5, 1], "map": {"x": None, "y": "z"}, "ok": True}


def test_a_match_has_no_faults(schema: Any) -> None:
    assert schema.check(GOOD, RULES) == []


@pytest.mark.parametrize(
    "change, at",
    [
        ({"n": 0}, "$.n"),
        ({"n": 1.5}, "$.n"),
        ({"n": True}, "$.n"),
        ({"kind": "c"}, "$.kind"),
        ({"pair": [0.5]}, "$.pair"),
        ({"pair": [0.5, 2]}, "$.pair[1]"),
        ({"map": {"x": 3}}, "$.map.x"),
        ({"ok": 1}, "$.ok"),
        ({"other": 1}, "$: other"),
    ],
)
def test_each_mismatch_is_found(schema: Any, change: dict[str, Any], at: str) -> None:
    faults = schema.check({**GOOD, **change}, RULES)
    assert len(faults) == 1 and faults[0].startswith(at)


def test_a_missing_name_and_an_unknown_word(schema: Any) -> None:
    assert schema.check({"n": 1}, RULES) == ["$: kind is missing"]
    with pytest.raises(ValueError, match="minimumm"):
        schema.check({"n": 1}, {"minimumm": 3})


def test_every_schema_is_readable(schema: Any) -> None:
    files = sorted(schema.FOLDER.glob("*.json"))
    assert len(files) >= 3
    for file in files:
        rules = json.loads(file.read_text(encoding="utf-8"))
        assert rules["$schema"].endswith("2020-12/schema"), file
        assert file.stem in rules["title"], file
        assert schema.check({}, rules), file  # an empty object lacks what is required
