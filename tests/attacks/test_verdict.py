"""The four verdicts, from made-up findings."""

import pytest

from merveil.attacks.base import Finding, Rule
from merveil.attacks.verdict import Verdict, judge

RULE = Rule(success=0.8, margin=0.1)


def finding(score: float, half: float, strict: float | None = None, chance: float = 0.1) -> Finding:
    wide = half * 1.6 if strict is None else strict
    return Finding(
        score, chance, (score - half, score + half), (score - wide, score + wide), 50, "clients", "share", 0.3
    )


WON = finding(0.95, 0.04)


@pytest.mark.parametrize(
    ("found", "control", "expected"),
    [
        (finding(0.10, 0.05), WON, Verdict.PROTECTED),
        (finding(0.10, 0.15), WON, Verdict.UNDERPOWERED),
        (finding(0.90, 0.05), WON, Verdict.BROKEN),
        (finding(0.25, 0.08), WON, Verdict.BROKEN),  # clear of chance, though under chance + margin at worst
        (finding(0.15, 0.02), WON, Verdict.PROTECTED),  # a leak within the margin, with its bound
        (finding(0.10, 0.05), finding(0.5, 0.05), Verdict.CONTROL_FAILED),
        (finding(0.90, 0.05), finding(0.9, 0.85), Verdict.CONTROL_FAILED),
        (finding(0.17, 0.05), WON, Verdict.UNDERPOWERED),  # neither clear of chance nor under the margin
    ],
)
def test_verdicts(found: Finding, control: Finding, expected: Verdict) -> None:
    assert judge(found, control, RULE) is expected
