"""Two implementations of one specification agree on every byte of a round, and on the sum."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from merveil.protocols.frame import Frame
from merveil.protocols.primitives.shamir import split_pair
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import Phase
from merveil.protocols.simulation.driver import Driver, Traffic


def play_ours(kit: Any, no_vector: set[int], **changes: Any) -> tuple[dict[Any, bytes], Any]:
    cohort = kit.context(**changes).cohort
    clients = {i: kit.client(i, rng=SeededRng(b"coins/%d" % i), **changes) for i in cohort}
    frames: list[Frame] = []
    driver = Driver(
        kit.server(**changes),
        clients,
        kit.phases,
        dict.fromkeys(no_vector, Phase.MASKED),
        Traffic(frames=frames),
    )
    outcome = driver.run({i: kit.codes(i) for i in cohort})
    return {(f.kind, f.sender, f.to): f.encode() for f in frames}, outcome


def play_reference(
    reference: Any, kit: Any, no_vector: set[int], **changes: Any
) -> tuple[dict[Any, bytes], Any]:
    context = kit.context(**changes)
    clients = {}
    for i in context.cohort:
        identity = kit.federation.identities[i - 1]
        clients[i] = reference.Client(
            i,
            identity.sign_key.private_bytes_raw(),
            identity.agree_key.private_bytes_raw(),
            b"coins/%d" % i,
            [int(x) for x in kit.codes(i)],
            identity.member.encode(),
        )
    roster = kit.roster
    return reference.Round(  # type: ignore[no-any-return]
        suite={"secagg": 1, "secagg+": 2}[kit.scheme],
        name=f"{kit.scheme}/1",
        federation=roster.federation,
        serial=roster.serial,
        beacon=roster.beacon,
        roster=roster.data[:-64],
        cohort=list(context.cohort),
        params={f.name: getattr(kit.params, f.name) for f in fields(kit.params)},
        model_hash=context.model_hash,
        config_hash=context.config_hash,
        number=context.round,
        attempt=context.attempt,
        clients=clients,
        no_vector=no_vector,
    ).play()


@pytest.mark.parametrize(
    "scheme, settings, no_vector, changes",
    [
        ("secagg", {"cohort": 5}, set(), {}),
        ("secagg", {"cohort": 5, "max_weight": 9, "bits": 40, "dim": 3}, {3}, {"round": 4, "attempt": 2}),
        ("secagg", {"cohort": 9, "spare": 3, "bits": 4}, {2}, {"round": 2, "model_hash": b"m" * 32}),
        ("secagg+", {"cohort": 24, "dim": 5}, {2, 17}, {"round": 3}),
    ],
)
def test_every_frame_and_the_sum_agree(
    scheme: str, settings: Any, no_vector: set[int], changes: Any, kit: Any, reference: Any
) -> None:
    one = kit(scheme, **settings)
    cohort = one.context(**changes).cohort
    silent = {cohort[i] for i in no_vector}
    one.codes = _codes(one, cohort)
    ours, outcome = play_ours(one, silent, **changes)
    theirs, total = play_reference(reference, one, silent, **changes)
    # the driver notes what the server sends to silent clients; they are in both, and nothing else is
    assert ours.keys() == theirs.keys()
    for slot in sorted(ours):
        assert ours[slot] == theirs[slot], f"kind {slot[0]} from {slot[1]} to {slot[2]}"
    assert [int(x) for x in outcome.codes] == total
    assert set(outcome.survivors) == set(cohort) - silent


def _codes(kit: Any, cohort: tuple[int, ...]) -> Any:
    """Vectors by index, with both extremes in each."""

    def codes(index: int) -> Any:
        p = kit.params
        words = np.frombuffer(SeededRng(b"vector/%d" % index).draw(8 * p.size, "codes"), dtype="<u8")
        values = (words % np.uint64(2 * p.levels + 1)).astype(np.int64) - p.levels
        values[0], values[1] = p.levels, -p.levels
        if p.weighted:
            values[p.dim] = 1 + index % p.max_weight
        return values

    return codes


def test_shares_of_the_two_implementations(reference: Any) -> None:
    """The side-by-side evaluation against x**i, up to a run of coefficients and beyond."""
    for threshold in (1, 2, 63, 64, 65, 130):
        rng = SeededRng(threshold)
        one, two = rng.draw(32, "one"), rng.draw(32, "two")
        randomness = rng.draw(96 * (threshold - 1), "coefficients")
        points = [1, 2, threshold, threshold + 1, 65_535]
        half = len(randomness) // 2
        ours = split_pair(one, two, threshold, points, randomness)
        for x, pair in zip(points, ours):
            for secret, part, share in zip((one, two), (randomness[:half], randomness[half:]), pair):
                assert share == reference.evaluate(reference.polynomial(secret, part), x)
        enough = {x: reference.evaluate(reference.polynomial(one, randomness[:half]), x)
                  for x in range(1, threshold + 1)}  # fmt: skip
        assert reference.interpolate(enough) == one


def test_the_references_curve_against_rfc_7748(reference: Any) -> None:
    """Section 5.2, first vector."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert reference.ladder(scalar, point).hex() == (
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    )
    one, two = bytes(range(32)), bytes(range(32, 64))
    assert reference.ladder(one, reference.public(two)) == reference.ladder(two, reference.public(one))


def test_the_references_hkdf_against_rfc_5869(reference: Any) -> None:
    """Appendix A.1 has its own info; the expansion is the same with ours."""
    key = reference.hmac.new(bytes(range(13)), b"\x0b" * 22, "sha256").digest()
    assert key.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
