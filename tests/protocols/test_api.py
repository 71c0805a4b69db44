"""Entry points: what is refused before a session exists, and that nothing was revealed or noted by then."""

from dataclasses import replace
from typing import Any

import pytest

from merveil.protocols.api import phases
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.identity import Identity
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get, names, params_from
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import Phase

NOW = 1_700_000_000


@pytest.fixture(params=names())
def k(request: pytest.FixtureRequest, kit: Any) -> Any:
    return kit(request.param, cohort=6, spare=1)


def aborts(code: AbortCode, make: Any, *args: Any, **changes: Any) -> None:
    with pytest.raises(Aborted) as caught:
        make(*args, **changes)
    assert caught.value.code is code and not caught.value.released


def test_schemes_are_listed_and_described() -> None:
    assert names()[0] == "plain"
    for name in names():
        scheme = get(name)
        assert scheme.name == name and phases(name) == tuple(p.value for p in scheme.phases)
        assert not {"IDLE", "DONE", "ABORTED", "SUSPENDED"} & set(phases(name))
        assert 0 <= scheme.suite <= 255
    assert len({get(n).suite for n in names()}) == len(names()), "a frame names its scheme"


@pytest.mark.parametrize("name", ["", "PLAIN", "broken", "INSECURE_plain", "no_self_mask"])
def test_an_unknown_scheme_lists_the_known_ones(name: str) -> None:
    with pytest.raises(LocalError, match="choose one of plain"):
        get(name)


def test_a_roster_outside_its_period_is_stale(k: Any) -> None:
    for now in (NOW - 2 * 86_400, NOW + 2 * 86_400):
        aborts(AbortCode.STALE_ROSTER, k.client, 1, now=now)


def test_the_clock_is_the_default_time(k: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merveil.protocols.api.time.time", lambda: float(NOW))
    k.client(1, now=None)
    monkeypatch.setattr("merveil.protocols.api.time.time", lambda: float(NOW + 10**8))
    aborts(AbortCode.STALE_ROSTER, k.client, 1, now=None)


def test_a_roster_older_than_one_already_seen_is_stale(k: Any) -> None:
    k.ledger(1).see_roster(k.roster.federation, k.roster.serial + 1, bytes(32))
    aborts(AbortCode.STALE_ROSTER, k.client, 1)


def test_the_serial_of_a_used_roster_is_noted(k: Any) -> None:
    k.client(1)
    with pytest.raises(Aborted):
        k.ledger(1).see_roster(k.roster.federation, k.roster.serial - 1, bytes(32))


def test_a_refused_session_notes_nothing(k: Any) -> None:
    """A roster of another federation, or parameters below the floor, must not move the highest serial."""
    aborts(AbortCode.PARAMS_BELOW_FLOOR, k.client, 1, policy=replace(k.policy, schemes=frozenset()))
    k.ledger(1).see_roster(k.roster.federation, 0, bytes(32))
    assert k.ledger(1).state(k.roster.federation, 1) is None


def test_a_roster_opened_under_another_anchor_is_refused(k: Any) -> None:
    with pytest.raises(LocalError) as caught:
        k.client(1, policy=Policy(bytes(32), k.policy.schemes, allow_small_cohort=True))
    assert caught.value.code is AbortCode.ROSTER_MISMATCH


@pytest.mark.parametrize(
    "change",
    [
        {"schemes": frozenset({"other"})},
        {"max_dim": 6},
        {"bits": (17, 20)},
        {"bits": (4, 15)},
        {"max_rounds": 0},
    ],
    ids=str,
)
def test_the_policy_is_asked_first(k: Any, change: dict[str, Any]) -> None:
    aborts(AbortCode.PARAMS_BELOW_FLOOR, k.client, 1, policy=replace(k.policy, **change))


def test_figures_of_privacy_are_asked_before_a_session_exists(k: Any) -> None:
    """Whoever drives the session has to name the noise that it puts into the vector."""
    figures = replace(k.policy, dp_epsilon=2.0, dp_delta=1e-3, dp_norm_clip=1.0)
    aborts(AbortCode.PARAMS_BELOW_FLOOR, k.client, 1, policy=figures)


def test_parameters_of_another_scheme_are_refused(k: Any) -> None:
    other = replace(k.params, scheme="other")
    for make in (lambda: k.client(1, params=other), lambda: k.server(params=other)):
        with pytest.raises(LocalError) as caught:
            make()
        assert caught.value.code is AbortCode.PARAMS_MISMATCH


def test_rounds_end_with_the_roster(k: Any) -> None:
    coordinator, identities = k.federation.coordinator, k.federation.identities
    short = coordinator.sign(
        [i.member for i in identities], serial=2, not_before=NOW - 1, expires=NOW + 1, max_rounds=3
    )
    k.client(1, roster=short, round=3) if 1 in k.context(roster=short, round=3).cohort else None
    with pytest.raises(LocalError, match="3 rounds"):
        k.client(1, roster=short, round=4)


@pytest.mark.parametrize(("round_", "attempt"), [(0, 1), (1, 0), (-1, 1), (1, 2**16)])
def test_rounds_and_attempts_start_at_one(k: Any, round_: int, attempt: int) -> None:
    for make in (lambda: k.client(1, round=round_, attempt=attempt),
                 lambda: k.server(round=round_, attempt=attempt)):  # fmt: skip
        with pytest.raises((LocalError, Aborted)):
            make()


@pytest.mark.parametrize("name", ["model_hash", "config_hash"])
def test_hashes_have_32_bytes(k: Any, name: str) -> None:
    for make in (lambda: k.client(1, **{name: bytes(20)}), lambda: k.server(**{name: b""})):
        with pytest.raises(LocalError):
            make()


def test_only_members_with_their_keys_take_part(k: Any) -> None:
    with pytest.raises(LocalError, match="not in roster"):
        k.client(1, identity=Identity.generate("member-1", SeededRng(77)))


def test_who_is_not_invited_is_told_so(k: Any) -> None:
    (outside,) = set(range(1, 8)) - set(k.context().cohort)
    with pytest.raises(LocalError, match="not in the cohort"):
        k.client(outside)


def test_a_cohort_larger_than_the_roster_is_refused(kit: Any) -> None:
    k = kit("plain", cohort=6)
    with pytest.raises(LocalError, match="cannot be drawn"):
        k.server(params=replace(k.params, cohort=7))


def test_a_foreign_or_damaged_snapshot_is_refused(k: Any, kit: Any) -> None:
    k = kit(k.scheme, cohort=6)
    one, other = k.context().cohort[:2]
    blob = k.client(one).suspend()
    for call in (
        lambda: k.client(other, snapshot=blob),
        lambda: k.client(one, snapshot=blob, round=2),
        lambda: k.client(one, snapshot=blob, attempt=2),
        lambda: k.client(one, snapshot=blob, model_hash=b"m" * 32),
        lambda: k.client(one, snapshot=blob, ledger=Ledger()),
        lambda: k.client(one, snapshot=blob[:-1]),
        lambda: k.client(one, snapshot=b""),
    ):
        aborts(AbortCode.STATE_ROLLBACK, call)
    assert k.client(one, snapshot=blob).phase is Phase.IDLE


def test_a_snapshot_is_bound_to_its_identity_even_in_one_ledger(k: Any) -> None:
    one, other = k.context().cohort[:2]
    shared = Ledger()
    blob = k.client(one, ledger=shared).suspend()
    aborts(AbortCode.STATE_ROLLBACK, k.client, other, ledger=shared, snapshot=blob)


@pytest.mark.parametrize("data", [b"", b"\x00" * 4, b"\xff" * 64, bytes(1000)])
def test_bytes_that_are_no_server_snapshot_are_refused(k: Any, data: bytes) -> None:
    aborts(AbortCode.STATE_ROLLBACK, k.server, snapshot=data)


def test_a_server_snapshot_belongs_to_its_round(k: Any) -> None:
    server = k.server()
    server.start()
    blob = server.suspend()
    aborts(AbortCode.STATE_ROLLBACK, k.server, snapshot=blob, round=2)
    assert k.server(snapshot=blob).phase is k.phases[0]


def test_parameters_from_fields_name_an_unknown_one() -> None:
    params = get("secagg").params(6, 4)
    fields = {name: getattr(params, name) for name in params.__dataclass_fields__}
    assert params_from(fields) == params
    with pytest.raises(LocalError, match="sigma") as error:
        params_from({**fields, "sigma": 3})
    assert error.value.code is AbortCode.PARAMS_MISMATCH
    with pytest.raises(LocalError, match="unknown scheme"):
        params_from({**fields, "scheme": "rot13"})
