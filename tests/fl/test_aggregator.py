"""The drop-in aggregator: structures, weights, clipping, dropouts, and errors that name the client."""

import numpy as np
import pytest

import merveil
from merveil.fl.aggregator import Structure
from merveil.protocols.registry import names

SECURE = [name for name in names() if name != "plain"]


def updates(n: int = 6, d: int = 40, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(-0.5, 0.5, d) for _ in range(n)]


@pytest.mark.parametrize("scheme", names())
def test_mean_is_weighted_and_within_the_grid(scheme: str) -> None:
    xs, weights = updates(), [3, 1, 4, 1, 5, 9]
    got = merveil.SecureAggregator(scheme).mean(xs, weights=weights)
    truth = sum(w * x for w, x in zip(weights, xs)) / sum(weights)
    step = 1 / (2**15 - 1)
    assert np.abs(got.value - truth).max() <= len(xs) * 16 / sum(weights) * step
    assert got.weight == sum(weights)
    assert got.survivors == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("scheme", [s for s in ("secagg", "secagg+") if s in names()])
def test_one_seed_of_coins_gives_the_same_bits_as_plain(scheme: str) -> None:
    xs = updates(7, 501)
    coins = [np.random.default_rng(i).random(501) for i in range(7)]
    plain = merveil.SecureAggregator("plain").mean(xs, weights=[2] * 7, coins=coins)
    other = merveil.SecureAggregator(scheme).mean(xs, weights=[2] * 7, coins=coins)
    assert plain.value.tobytes() == other.value.tobytes()


def test_rounds_reuse_identities_and_never_a_round() -> None:
    aggregator = merveil.SecureAggregator("secagg")
    first, second = aggregator.mean(updates()), aggregator.mean(updates())
    assert np.array_equal(first.value, second.value)
    assert aggregator._federation is not None
    assert aggregator._federation.round == 2


def test_structures_come_back_as_they_went_in() -> None:
    a, b = np.full((2, 3), 0.25, dtype=np.float32), np.full(4, -0.5)
    listed = merveil.SecureAggregator("plain").mean([[a, b]] * 2).value
    assert isinstance(listed, list)
    assert (listed[0].shape, listed[0].dtype) == ((2, 3), np.float32)
    named = merveil.SecureAggregator("plain").mean([{"w": a, "b": b}] * 2).value
    assert list(named) == ["w", "b"]
    assert np.allclose(named["w"], 0.25, atol=1e-4)
    assert np.allclose(named["b"], -0.5, atol=1e-4)
    rows = merveil.SecureAggregator("plain").mean(np.full((3, 5), 0.1)).value
    assert rows.shape == (5,)


def test_state_dicts_of_torch() -> None:
    torch = pytest.importorskip("torch")
    state = {"w": torch.full((2, 2), 0.5), "steps": torch.tensor(3)}
    aggregator = merveil.SecureAggregator("plain")
    with pytest.raises(merveil.LocalError, match=r"'steps' holds int64.*skip"):
        aggregator.mean([state] * 2)
    value = aggregator.mean([state] * 2, skip=["steps"]).value
    assert value["w"].dtype == torch.float32
    assert torch.allclose(value["w"], torch.full((2, 2), 0.5), atol=1e-4)


@pytest.mark.parametrize("weight", ["a", float("nan"), 0, -1, 2.5, True, None, [1], np.bool_(True)], ids=repr)
def test_a_bad_weight_names_its_client(weight: object) -> None:
    with pytest.raises(merveil.LocalError, match="client 1: a weight is an integer"):
        merveil.SecureAggregator("plain").mean(updates(2), weights=[1, weight])  # type: ignore[list-item]


def test_whole_numbers_of_other_types_are_weights() -> None:
    got = merveil.SecureAggregator("plain").mean(updates(2), weights=[np.int32(3), 2.0])  # type: ignore[list-item]
    assert got.weight == 5


def test_a_weight_above_the_public_bound_is_refused() -> None:
    with pytest.raises(merveil.LocalError, match="client 1: weight 9 exceeds max_weight 8"):
        merveil.SecureAggregator("plain", max_weight=8).mean(updates(2), weights=[1, 9])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_named(bad: float) -> None:
    xs = updates(3)
    xs[2][7] = bad
    with pytest.raises(merveil.LocalError, match="client 2: INPUT_NOT_FINITE: coordinate 7") as caught:
        merveil.SecureAggregator("plain").mean(xs)
    assert caught.value.code is merveil.AbortCode.INPUT_NOT_FINITE


def test_shapes_and_keys_must_agree() -> None:
    with pytest.raises(merveil.LocalError, match=r"client 1: SHAPE_MISMATCH: has shape \(3,\)"):
        merveil.SecureAggregator("plain").mean([np.zeros(4), np.zeros(3)])
    with pytest.raises(merveil.LocalError, match="keys"):
        merveil.SecureAggregator("plain").mean([{"a": np.zeros(2)}, {"b": np.zeros(2)}])
    with pytest.raises(merveil.LocalError, match="no updates"):
        merveil.SecureAggregator("plain").mean([])


def test_cut_is_reported_and_bounded() -> None:
    xs = [np.zeros(100), np.zeros(100)]
    xs[1][:10] = 3.0
    with pytest.raises(merveil.LocalError, match="client 1: 10 of 100 coordinates exceed clip"):
        merveil.SecureAggregator("plain").mean(xs)
    got = merveil.SecureAggregator("plain", max_cut=0.2).mean(xs)
    assert got.cut == pytest.approx(0.05)
    assert got.value[0] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("scheme", SECURE)
def test_small_cohorts_are_refused_before_anything_is_sent(scheme: str) -> None:
    with pytest.raises((merveil.Aborted, merveil.LocalError)) as caught:
        merveil.SecureAggregator(scheme).mean(updates(4))
    assert caught.value.code is merveil.AbortCode.COHORT_TOO_SMALL


def test_drop_names_known_clients_and_phases() -> None:
    aggregator = merveil.SecureAggregator("secagg")
    with pytest.raises(merveil.LocalError, match="the phases are KEYS, SHARES, MASKED, CHECK, UNMASK"):
        aggregator.mean(updates(), drop={0: "LUNCH"})
    with pytest.raises(merveil.LocalError, match="drop names client 6 of 6"):
        aggregator.mean(updates(), drop={6: "KEYS"})


@pytest.mark.parametrize("phase", merveil.phases("secagg"))
def test_uplink_counts_what_was_sent(phase: str) -> None:
    got = merveil.SecureAggregator("secagg").mean(updates(7), drop={2: phase})
    expected = phase in ("CHECK", "UNMASK")
    assert (2 in got.survivors) is expected
    assert (got.uplink_bytes[2] == 0) is (phase == "KEYS")
    assert all(size > 0 for i, size in enumerate(got.uplink_bytes) if i != 2)


def test_too_many_dropouts_abort_with_the_missing_named() -> None:
    with pytest.raises(merveil.Aborted, match=r"BELOW_THRESHOLD.*missing: \[1, 2, 3\]") as caught:
        merveil.SecureAggregator("secagg").mean(updates(6), drop=dict.fromkeys(range(3), "MASKED"))
    assert not caught.value.released


def test_transcript_is_kept_on_request_only() -> None:
    assert merveil.SecureAggregator("plain").mean(updates(2)).transcript is None
    transcript = merveil.SecureAggregator("secagg", record=True).mean(updates()).transcript
    assert transcript is not None
    view = transcript.view(frozenset({0}))
    assert len(view.frames) == len(transcript.frames)
    assert not view.states
    assert set(transcript.view(frozenset({3})).states) == {3}


def test_structure_restores_what_it_flattens() -> None:
    update = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(2.0)}
    structure = Structure(update)
    back = structure.restore(structure.flatten(update))
    assert all(np.array_equal(back[k], update[k]) for k in update)


def test_lattice_releases_its_key_either_way() -> None:
    pytest.importorskip("numba")
    updates = [np.random.default_rng(i).normal(0, 0.1, 300) for i in range(6)]
    committee = merveil.SecureAggregator("lattice").mean(updates, drop={2: "MASKED"})
    release = merveil.SecureAggregator("lattice", key_release="secagg+").mean(updates, drop={2: "MASKED"})
    assert release.survivors == committee.survivors == (0, 1, 3, 4, 5)
    assert np.array_equal(release.value, committee.value)
    late = merveil.SecureAggregator("lattice", key_release="secagg+").mean(updates, drop={2: "SHARES"})
    assert late.survivors == (0, 1, 3, 4, 5)  # a phase that the committee's form does not have
    with pytest.raises(merveil.LocalError, match="option of lattice, not of secagg"):
        merveil.SecureAggregator("secagg", key_release="committee")
    with pytest.raises(merveil.LocalError, match="key_release is 'committee' or 'secagg"):
        merveil.SecureAggregator("lattice", key_release="mail").mean(updates)
