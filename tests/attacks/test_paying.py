"""A30-site: the site holds, and the audit sees each part of it that is taken out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from merveil.attacks.a30_site import NAMED, SCHEMES, score
from merveil.attacks.paying import Answer
from merveil.attacks.registry import get
from merveil.attacks.runner import Trial, try_on_sites
from merveil.attacks.verdict import Verdict, judge
from merveil.audits.broken.sites import OpenSite
from merveil.audits.claims import CLAIMS
from merveil.fl import dp_options
from merveil.fl.deploy import private
from merveil.fl.deploy.site import Site
from merveil.fl.deploy.work import Work
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.policy import Policy
from merveil.protocols.rng import SystemRng

ATTACK = replace(get("A30-site"), tries=2)


def tried(scheme: str = "secagg", **how: Any) -> Trial:
    return try_on_sites(ATTACK, scheme, 5, **how)


@pytest.fixture(scope="module")
def control() -> Trial:
    return tried(site=OpenSite)


def test_the_schemes_are_those_that_the_noise_composes_with() -> None:
    assert set(SCHEMES) == {s for s, modes in dp_options.SCHEMES.items() if "distributed" in modes}
    claim = CLAIMS["C-22"]
    assert claim.tries(ATTACK, "lattice") and not claim.tries(ATTACK, "ckks")


def test_a_site_answers_the_honest_tasks_alone_and_one_without_checks_all(control: Trial) -> None:
    found, open_ = tried().finding, control.finding
    assert found.score == 0 and found.held == 1 and found.details["tasks_answered"] == 0
    assert found.details["tasks"] == 2 * len(NAMED)
    assert found.details["honest_answered"] == found.details["honest_tasks"] >= 2 * 3
    assert 0.8 < found.details["least_noise_over_named"] < 1.2
    assert open_.score == 1 and open_.details["all_answered"] == 1
    assert judge(open_, open_, ATTACK.rule) is Verdict.BROKEN


def without_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(member: Any, task: Any, work: Any) -> Mechanism | None:
        return private.decode(task.mechanism) if task.mechanism else None

    monkeypatch.setattr(private, "judge", named)


def without_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "pay", lambda *_: None)


def paid_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charged once the session has the vector: what a crash in between would forget."""
    pay, keep, due = private.pay, Site._keep, []
    monkeypatch.setattr(private, "pay", lambda *given: due.append(given))

    def kept(self: Site, *given: Any) -> Any:
        done = keep(self, *given)
        while due:
            pay(*due.pop())
        return done

    monkeypatch.setattr(Site, "_keep", kept)


def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget in memory, new for every question."""

    @contextmanager
    def budget(member: Any) -> Iterator[Any]:
        with private.UploadBudget(None, "f", member.policy.dp_epsilon, member.policy.dp_delta) as found:  # type: ignore[arg-type]
            yield found

    monkeypatch.setattr(private, "_present", lambda path: True)
    monkeypatch.setattr(private, "budget", budget)


def any_mechanism(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "check_mechanism", lambda *_: None)


def any_mechanism_unpaid(monkeypatch: pytest.MonkeyPatch) -> None:
    any_mechanism(monkeypatch)
    monkeypatch.setattr(private, "afford", lambda *_: None)
    without_pay(monkeypatch)


def any_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mechanism, "check", lambda *_: None)


def any_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work, "check_announced", lambda *_: None)


def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(self: Mechanism, update: Any, public: bytes) -> Any:
        return self.quantise(update, public, SystemRng())

    monkeypatch.setattr(Mechanism, "encode", bare)


def half_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Mechanism.encode

    def half(self: Mechanism, *given: Any) -> Any:
        return encode(replace(self, variance=self.variance / 2), *given)

    monkeypatch.setattr(Mechanism, "encode", half)


@pytest.mark.parametrize(
    ("mutate", "answered"),
    [
        (without_judge, {"delta"}),  # the session's policy still asks for the rest
        (without_pay, {"half", "retry", "more"}),
        (forgetful, {"half", "retry", "more"}),
        (any_mechanism, {"none", "counts"}),  # what it answers it pays, until nothing is left
        (any_mechanism_unpaid, {"none", "counts", "central", "cohort", "clip", "honest"}),
        (any_honest, {"honest"}),
        (any_hash, {"hash"}),
    ],
)
def test_a_site_without_one_of_its_checks_is_broken(
    monkeypatch: pytest.MonkeyPatch,
    control: Trial,
    mutate: Callable[[pytest.MonkeyPatch], None],
    answered: set[str],
) -> None:
    mutate(monkeypatch)
    found = tried().finding
    assert judge(found, control.finding, ATTACK.rule) is Verdict.BROKEN
    assert {kind for kind in NAMED if found.details[f"answered_{kind}"] == 1} >= answered
    assert found.score == 1


@pytest.mark.parametrize(
    ("mutate", "missing"),
    [(paid_late, "paid_before"), (no_noise, "noise_found"), (half_noise, "noise_found")],
)
def test_vectors_that_are_paid_late_or_carry_less_count_as_broken(
    monkeypatch: pytest.MonkeyPatch,
    control: Trial,
    mutate: Callable[[pytest.MonkeyPatch], None],
    missing: str,
) -> None:
    mutate(monkeypatch)
    found = tried().finding
    assert found.score == 0 and found.details[missing] == 0 and found.held == 0
    assert judge(found, control.finding, ATTACK.rule) is Verdict.BROKEN


def test_the_look_before_training_is_a_courtesy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "afford", lambda *_: None)
    found = tried().finding
    assert found.score == 0 and found.held == 1


def test_a_site_that_refuses_everything_holds_nothing() -> None:
    class Shut(Site):
        def _begin(self, *given: Any) -> Any:
            raise Aborted(AbortCode.PARAMS_BELOW_FLOOR, "no", (0,))

    found = tried(site=Shut).finding
    assert found.score == 0 and found.held == 0 and found.details["honest_answered"] == 0


def test_a_refusal_counts_only_by_its_own_name_and_reason() -> None:
    truth = {"uploads": 2, "before": [1, 2], "noise": [(1.0, 1024)]}
    good = [(kind, Answer(False, *named)) for kind, named in NAMED.items()]

    def held(offers: list[Any], truth: dict[str, Any]) -> float:
        guess = {"offers": offers, "honest": [Answer(True), Answer(True)]}
        return score([guess], [truth], np.random.default_rng(0)).held

    assert held(good, truth) == 1
    for kind, (code, spent) in NAMED.items():
        rest = [o for o in good if o[0] != kind]
        assert held([*rest, (kind, Answer(False, "BELOW_THRESHOLD", spent))], truth) == 0
        assert held([*rest, (kind, Answer(False, code, not spent))], truth) == 0
    for changes in ({"uploads": 3}, {"before": [0, 1]}, {"noise": [(0.5, 1024)]}, {"noise": []}):
        assert held(good, {**truth, **changes}) == 0
