"""One attack and its control as one plain record: for `merveil attack`, the audits and the report alike."""

from typing import Any

from merveil.attacks.base import Adversary
from merveil.attacks.runner import Trial
from merveil.attacks.verdict import judge


def adversary_json(adversary: Adversary) -> dict[str, Any]:
    """Who is corrupted, what it may do, what it knows."""
    return {
        "name": adversary.name,
        "corrupted": sorted(adversary.corrupted),
        "powers": sorted(power.value for power in adversary.powers),
        "knows": adversary.knows,
    }


def record(trial: Trial, control: Trial) -> dict[str, Any]:
    """The verdict with every figure behind it; thresholds are those fixed in the attack's file."""
    attack = trial.attack
    return {
        "id": attack.id,
        "title": attack.title,
        "scheme": trial.scheme,
        "adversary": adversary_json(attack.adversary),
        "on_sum": attack.on_sum,
        "verdict": judge(trial.finding, control.finding, attack.rule).value,
        **trial.finding.to_json(),
        "rule": {"success": attack.rule.success, "margin": attack.rule.margin},
        "control": {"scheme": control.scheme, **control.finding.to_json()},
    }
