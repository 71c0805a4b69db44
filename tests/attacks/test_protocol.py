"""Protocol attacks: each wins on its weakened build, is refused on the sound one, and counts honestly."""

from typing import Any

import numpy as np
import pytest

from merveil.attacks import a02_twister, a06_sybil, a08_downgrade, a09_pooling, a32_retry, registry
from merveil.attacks.plays import Guess, recovery, uniform_p
from merveil.attacks.protocol import Field, sound
from merveil.attacks.runner import try_on_fields
from merveil.attacks.verdict import Verdict, judge, succeeded
from merveil.audits.broken.builds import BUILDS
from merveil.audits.controls import BUILDS as ALL_BUILDS
from merveil.protocols.errors import Aborted, LocalError
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.primitives import shamir
from merveil.protocols.registry import get, names
from merveil.protocols.rng import SystemRng
from merveil.protocols.simulation import party

NAMES = sorted(BUILDS)


@pytest.fixture(autouse=True)
def few_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attack's plays are independent: a few of them show the way it goes."""
    monkeypatch.setattr(a32_retry, "_USUAL", 1)
    monkeypatch.setattr(a09_pooling, "SHARINGS", 2000)


def fewer(attack: Any, tries: int) -> Any:
    return type(attack)(**{**{f: getattr(attack, f) for f in attack.__dataclass_fields__}, "tries": tries})


@pytest.mark.parametrize("name", NAMES)
def test_the_control_wins_and_the_sound_scheme_refuses(name: str) -> None:
    if name == "A20-time":
        pytest.importorskip("torch")
    attack = fewer(registry.get(name), 10)
    control = try_on_fields(attack, ALL_BUILDS[name](), seed=3)
    assert succeeded(control.finding, attack.rule), control.finding
    if name == "A20-time":  # a leak of every scheme
        return
    for scheme in [s for s in ("secagg", "plain") if not attack.schemes or s in attack.schemes]:
        finding = try_on_fields(attack, sound(scheme), seed=4).finding
        assert finding.held == 1, finding
        assert finding.strict[0] <= finding.chance, finding
        assert judge(finding, control.finding, attack.rule) is not Verdict.BROKEN


def test_a_play_without_a_refusal_is_no_defence() -> None:
    """Nothing recovered and nobody refused: the verdict is broken, whatever the score."""
    score = recovery(("BAD_KEY",), "share")
    rng, rule = np.random.default_rng(0), registry.get("A07").rule
    won = score([Guess(1, np.zeros(3))] * 40, [{(1, 1): np.zeros(3)}] * 40, rng)
    refused = score([Guess(1, None, ("BAD_KEY",))] * 40, [{}] * 40, rng)
    silent = score([Guess(1, None, ("BAD_KEY",))] * 39 + [Guess(1)], [{}] * 40, rng)
    other = score([Guess(1, None, ("BAD_KEY", "LocalError"))] * 40, [{}] * 40, rng)
    assert judge(refused, won, rule) is Verdict.PROTECTED
    assert judge(silent, won, rule) is Verdict.BROKEN and silent.held == 39 / 40
    assert judge(other, won, rule) is Verdict.BROKEN and other.held == 0
    assert judge(refused, refused, rule) is Verdict.CONTROL_FAILED


def test_one_wrong_coordinate_is_no_recovery() -> None:
    truth = {(2, 1): np.arange(5)}
    score = recovery((), "share")
    near = np.arange(5)
    near[3] += 1
    assert score([Guess(2, near)], [truth], np.random.default_rng(0)).score == 0
    assert score([Guess(2, np.arange(5))], [truth], np.random.default_rng(0)).score == 1


def test_the_adversary_gets_no_key_of_an_honest_client() -> None:
    view = Field(sound("secagg"), np.random.default_rng(0))
    view.take_over([2])
    assert view.key(2) and view.honest == [1, 3, 4, 5, 6]
    with pytest.raises(LookupError, match="client 1 is honest"):
        view.key(1)
    with pytest.raises(LookupError):
        view.round().begin().own(3)


def test_weakened_builds_have_no_name_that_anything_accepts() -> None:
    policy = Policy(bytes(32))
    for name, make in BUILDS.items():
        build = make()
        if build.whole:
            assert name == "A20-time"
            continue
        assert build.label not in names()
        with pytest.raises(LocalError, match="unknown scheme"):
            get(build.label)
        with pytest.raises(Aborted, match="PARAMS_BELOW_FLOOR"):
            policy.check(Params(build.label, 6, 4), 1)
        if build.params is not None:
            with pytest.raises(Aborted, match="PARAMS_BELOW_FLOOR"):
                get(build.scheme).check_policy(build.params(6, 4, bits=16), policy)


def test_untempering_inverts_the_twister() -> None:
    words = np.random.MT19937(5).random_raw(1100).astype(np.uint32)
    assert (a02_twister.predict(words[:624], 476) == words[624:]).all()


def test_the_downgrade_table_has_every_field_and_each_is_lower() -> None:
    assert set(a08_downgrade.LOWER) == set(Params.__dataclass_fields__)
    rng = np.random.default_rng(1)
    for scheme, n in (("secagg", 6), ("secagg+", 20)):
        base = get(scheme).params(n, 8)
        for field, lower in a08_downgrade.LOWER.items():
            assert any(getattr(base, k) != v for k, v in lower(base, rng).items()), field


def test_isolation_is_printed_below_two_to_the_minus_forty() -> None:
    for cohort in a06_sybil.COHORTS:
        found = a06_sybil.isolation_log2(cohort)
        assert found is None or found < -40
    assert a06_sybil.isolation_log2(1000) is not None


def test_below_the_threshold_a_small_field_shows_the_secret_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real sharing over p = 257: for each value of t - 1 shares, all secrets stay equally likely."""
    monkeypatch.setattr(shamir, "PRIME", 257)
    shamir.lagrange.cache_clear()
    rng, secrets, cells = SystemRng(), np.random.default_rng(0).integers(0, 256, 10_000), []
    for secret in secrets:
        raw = int(secret).to_bytes(32, "big")
        randomness = rng.draw(2 * shamir.coefficients_size(3), "small-field")
        (one, _), (two, _) = shamir.split_pair(raw, raw, 3, (1, 2), randomness)
        # what the two shares say if the leading coefficient were zero, less the secret: noise if uniform
        told = 2 * int.from_bytes(one, "big") - int.from_bytes(two, "big")
        cells.append((told - int(secret)) % 257)
    shamir.lagrange.cache_clear()
    assert uniform_p(np.array(cells), 257) > 1e-6
    assert uniform_p(np.array(cells) // 2 * 2 % 257, 257) < 1e-6, "the test can tell"


def test_a_late_vector_never_enters_a_sum_that_was_opened() -> None:
    """A05: it comes after its phase closed; the server counts it and the sum stays."""
    view = Field(sound("secagg"), np.random.default_rng(0))
    round_ = view.round(silent=[3]).begin()
    round_.run(5)  # not a server's kind: to the end
    before = round_.server.result().codes.copy()
    late = view.round(attempt=1)
    assert late.context.digest == round_.context.digest
    assert 3 not in round_.server.result().survivors
    view.attempt(0, lambda: round_.server.receive(3, b""))
    assert (round_.server.result().codes == before).all()


def test_broken_schedules_counts_what_the_simulator_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound ledgers: none. A disk that loses every write: the same schedules are broken."""
    assert a32_retry.broken_schedules("plain", 0, 40) == 0
    save = party.MemoryStore.save
    monkeypatch.setattr(party.Disk, "save", lambda self, data: None if self.load() else save(self, data))
    assert a32_retry.broken_schedules("plain", 0, 40) > 0


def test_the_full_form_plays_more_and_each_play_longer() -> None:
    attack, scales = fewer(registry.get("A06"), 2), []

    def infer(view: Any, public: Any, rng: Any) -> Guess:
        scales.append((view.number, view.scale))
        return Guess(1)

    attack = type(attack)(**{**{f: getattr(attack, f) for f in attack.__dataclass_fields__}, "infer": infer})
    try_on_fields(attack, sound("secagg"), seed=0, times=3)
    assert scales == [(i, 3) for i in range(6)]
