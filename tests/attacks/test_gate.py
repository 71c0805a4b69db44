"""A23-gate: the gate holds, and the audit sees each part of it that is taken out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.attacks.a23_gate import NAMED, score
from merveil.attacks.gating import Answer, GateField
from merveil.attacks.registry import get
from merveil.attacks.runner import Trial, try_on_gates
from merveil.attacks.verdict import Verdict, judge
from merveil.audits.broken.gates import OpenGate
from merveil.fl import gate
from merveil.protocols.errors import AbortCode, Aborted

ATTACK = replace(get("A23-gate"), tries=2)


def tried(**how: Any) -> Trial:
    return try_on_gates(ATTACK, "secagg", 5, **how)


def test_a_member_with_the_gate_trains_on_nothing_crafted_and_one_without_on_everything() -> None:
    found, control = tried().finding, tried(gate=OpenGate).finding
    assert found.score == 0 and found.held == 1 and found.details["crafted_trained_on"] == 0
    assert found.details["honest_refused"] == 0 < found.details["honest_rounds"]
    assert control.score == 1 and control.details["all_trained_on"] == 1
    assert control.details["crafted_trained_on"] == control.details["crafted_models"] >= 2 * 9


@pytest.mark.parametrize("check", ["rows", "numbers", "network", "all"])
def test_a_gate_without_one_of_its_checks_is_broken(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    whole = gate.ModelGate.admit

    def admit(self: Any, layout: Any, params: Any, shape: str, **about: Any) -> None:
        ignored = {"rows": AbortCode.MODEL_MISMATCH, "numbers": AbortCode.INPUT_NOT_FINITE}
        ignored["network"] = AbortCode.ARCH_MISMATCH
        try:
            whole(self, layout, params, shape, **about)
        except Aborted as error:
            if check != "all" and error.code is not ignored[check]:
                raise

    monkeypatch.setattr(gate.ModelGate, "admit", admit)
    found = tried().finding
    assert found.score == 1
    for kind in NAMED:
        assert (found.details[f"trained_on_{kind}"] == 1) == (check in (kind, "all"))
    assert judge(found, tried(gate=OpenGate).finding, ATTACK.rule) is Verdict.BROKEN


def test_a_gate_that_refuses_everything_holds_nothing() -> None:
    class Shut:
        def admit(self, *model: Any, **about: Any) -> None:
            raise Aborted(AbortCode.MODEL_MISMATCH, "no", (0,))

    found = tried(gate=Shut).finding
    assert found.score == 0 and found.held == 0
    assert found.details["trainings_with_false_alarm"] == 2


def test_a_refusal_counts_only_by_its_own_name() -> None:
    def play(code: str, kind: str) -> dict[str, Any]:
        yes = Answer(True)
        return {"crafted": [(kind, Answer(False, code))], "honest": [yes], "around": [yes, yes]}

    rest = [(k, Answer(False, c)) for k, c in NAMED.items()]
    for kind in NAMED:
        good, bad = play(NAMED[kind], kind), play("PROTOCOL_ERROR", kind)
        for guess, held in ((good, 1.0), (bad, 0.0)):
            guess["crafted"] += rest
            assert score([guess], [None], np.random.default_rng(0)).held == held


def test_a_member_that_trains_on_no_numbers_has_trained_though_its_codec_refuses_the_update() -> None:
    field = GateField(OpenGate, "plain", 1, 0)
    assert field.send(np.full_like(field.models[0], np.nan), 0) == Answer(True)
