"""Four verdicts from a finding, its positive control and thresholds that were fixed beforehand.

Guarantees: no single lucky try breaks a claim (the 99.8 % interval decides *broken*), no weak try protects
one (the 95 % interval must lie below chance plus the margin for *protected*), and an attack whose control
does not win proves nothing. See docs/attacks.md.
"""

import enum

from merveil.attacks.base import Finding, Rule


class Verdict(enum.Enum):
    BROKEN = "broken"
    PROTECTED = "protected"
    UNDERPOWERED = "underpowered"
    CONTROL_FAILED = "control-failed"


def succeeded(finding: Finding, rule: Rule) -> bool:
    """Whether an attack clearly won: the score reaches `success` and chance lies outside the interval."""
    return finding.score >= rule.success and finding.strict[0] > finding.chance


def judge(finding: Finding, control: Finding, rule: Rule) -> Verdict:
    """Verdict on one claim for one scheme; larger scores are worse for the clients."""
    if not succeeded(control, rule):
        return Verdict.CONTROL_FAILED
    if finding.held < 1:  # the attack found nothing, but nobody refused it either: luck is no defence
        return Verdict.BROKEN
    harmless = finding.chance + rule.margin
    if finding.strict[0] > harmless or (finding.strict[0] > finding.chance and finding.ci95[1] > harmless):
        return Verdict.BROKEN
    if finding.ci95[1] <= harmless:
        return Verdict.PROTECTED
    return Verdict.UNDERPOWERED
