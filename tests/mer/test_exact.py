"""exact-ridge: its parts against plain ones, sums that do not care who adds, folds without the held out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.mer import exact
from merveil.mer.data.archive import Archive, make_archive
from merveil.mer.data.splits import loso
from merveil.mer.errors import InputError
from merveil.mer.exact_features import (
    CUT,
    FINE,
    Warp,
    block_means,
    find_warps,
    mirrored,
    movement,
    normalised,
)
from merveil.mer.exact_loso import Clips, exact_ridge_predictions, fold_models
from merveil.mer.loso import central_predictions

CLIPS = [[0, 1, 2, 0], [1, 1, 0], [2], [0, 0, 0], [0, 1, 2] * 3, [2, 1], [0, 2, 1], [1, 0, 0, 2], [0, 1]]


@pytest.fixture(scope="module")
def people() -> Archive:
    """Nine persons on two sites: one with a single clip, one with a single class, one with many clips."""
    rng = np.random.default_rng(5)
    patterns = rng.normal(size=(3, 28, 28, 3))
    labels = np.array([label for person in CLIPS for label in person])
    who = np.repeat(np.arange(9), [len(person) for person in CLIPS])
    x = 128 + 30 * patterns[labels] + 25 * rng.normal(size=(len(labels), 28, 28, 3))
    return make_archive(
        x=np.clip(x, 0, 255).astype(np.uint8),
        y=labels,
        dataset=np.where(who < 5, "a", "b"),
        subject=np.char.add("s", who.astype(str)),
        clip=np.char.add("c", np.arange(len(labels)).astype(str)),
    )


def images(n: int = 12, side: int = 28, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_normalisation_forgets_offset_and_scale_and_is_cut() -> None:
    x = images()
    clips = normalised(x)
    assert np.abs(normalised(x.astype(np.float32) * (0.5, 2, 3) + (1, -4, 9)) - clips).max() < 1e-5
    assert np.abs(np.median(clips, (1, 2))).max() < 1e-12 and np.abs(clips).max() <= CUT
    assert np.isfinite(normalised(np.full((1, 28, 28, 3), 7, np.uint8))).all()
    u, v = clips[0, 3, 4, 2], clips[0, 3, 4, 1]
    assert movement(clips)[0, 3 * 28 + 4] == round(np.hypot(u, v) * FINE)


def test_a_known_warp_is_found() -> None:
    at = np.arange(28) - 13.5
    row, column = np.meshgrid(at, at, indexing="ij")
    blob = np.exp(-((row - 3) ** 2 + (column - 4) ** 2) / 18) + 0.7 * np.exp(
        -((row + 6) ** 2 + column**2) / 30
    )
    rows, columns = Warp(1.1, 0.95, 1.5).matrices(28, 28)
    seen = rows @ blob @ columns.T
    found = find_warps({"a": seen.ravel() * 9, "b": blob.ravel() * 5}, {"a": 9, "b": 5}, (28, 28))
    assert found["a"] == Warp()  # the site with the most clips is the reference
    assert found["b"] == Warp(1.1, 0.95, 1.5)
    assert find_warps({"a": blob.ravel(), "c": 0 * blob.ravel()}, {"a": 1, "c": 0}, (28, 28)) == {"a": Warp()}


def test_block_means_match_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    clips = normalised(images(3))
    blurred = ndimage.gaussian_filter(clips, (0, 1.5, 1.5, 0), mode="reflect", truncate=4)
    wanted = blurred.reshape(3, 7, 4, 7, 4, 3).mean((2, 4)).reshape(3, -1)
    assert np.abs(block_means(clips, ["a"] * 3, {}) / FINE - wanted).max() <= 0.5 / FINE + 1e-12


def test_the_features_are_the_taylor_series_of_the_kernel() -> None:
    rng = np.random.default_rng(0)
    mean, axes = np.zeros(147), np.eye(147)
    basis = exact.Basis(mean, np.ones(147), axes, np.array([5, 5, 5]), mirror=False)
    block = np.zeros((2, 147), np.int64)
    block[:, :32] = rng.integers(-900, 900, (2, 32))
    phi = basis.features(block)
    a, b = block / FINE
    inner = 2 * (a @ b) / 147
    wanted = np.exp(-(a @ a + b @ b) / 147) * (1 + inner + inner**2 / 2)
    assert phi.shape == (2, exact.WIDTH) and phi[0, :-1] @ phi[1, :-1] == pytest.approx(wanted, abs=1e-12)
    assert np.abs(phi).max() <= 1


def test_the_solution_is_the_weighted_ridge(people: Archive) -> None:
    """Against sums in floating point, written down directly."""
    clips = Clips(people, exact.Settings(3, (28, 28)))
    block = block_means(clips.normal, clips.sites.tolist(), {})
    basis = exact.basis_from(clips.second(np.arange(people.n), block), mirror=False)
    x = block / FINE
    assert basis.mean == pytest.approx(x.mean(0)) and basis.scale == pytest.approx(np.maximum(x.std(0), 0.05))
    phi, weight = basis.features(block), people.n / (3 * np.bincount(people.y))[people.y]
    found = exact.coefficients(exact.gram_sums(phi, people.y, basis), basis, 0.3)
    targets = np.where(np.eye(3)[people.y] > 0, 1, -0.5)
    gram = (phi * weight[:, None]).T @ phi + 0.3 * np.eye(exact.WIDTH)
    wanted = np.linalg.solve(gram, (phi * weight[:, None]).T @ targets)
    assert np.abs(phi @ found - phi @ wanted).max() < 2e-3  # the grid's rounding


def flipped(x: np.ndarray) -> np.ndarray:
    """Float images [n,h,w,3] in a mirror: left and right change places, u its sign."""
    return x[:, :, ::-1].astype(np.float32) * np.float32([1, 1, -1])


def test_the_mirror_of_block_means_is_that_of_the_images() -> None:
    x, warps = images(5), {"a": Warp(1.05, 0.9, -1.5)}
    block = block_means(normalised(x), ["a"] * 5, warps)
    assert np.abs(block_means(normalised(flipped(x)), ["a"] * 5, warps) - mirrored(block)).max() <= 1
    assert np.array_equal(mirrored(mirrored(block)), block) and not np.array_equal(mirrored(block), block)


def test_with_its_mirror_it_is_the_ridge_that_learned_from_both_sides(people: Archive) -> None:
    """Against every clip standing twice in the sums, once mirrored; a score does not see the mirror."""
    clips = Clips(people, exact.Settings(3, (28, 28)))
    every = np.arange(people.n)
    block = block_means(clips.normal, clips.sites.tolist(), {})
    basis = exact.basis_from(clips.second(every, block), True)
    solved = exact.coefficients(exact.gram_sums(basis.features(block), people.y, basis), basis, 0.3)
    both, labels = np.concatenate([block, mirrored(block)]), np.tile(people.y, 2)
    twice = exact.basis_from(exact.moment_sums(both, labels, 3), mirror=False)
    assert basis.mean == pytest.approx(twice.mean, abs=1e-12)
    assert basis.scale == pytest.approx(twice.scale, abs=1e-12)
    phi, weight = twice.features(both), len(both) / (3 * np.bincount(labels))[labels]
    gram = (phi * weight[:, None]).T @ phi + 0.6 * np.eye(exact.WIDTH)  # twice the clips, twice the ridge
    wanted = np.linalg.solve(gram, (phi * weight[:, None]).T @ np.where(np.eye(3)[labels] > 0, 1, -0.5))
    found = basis.features(block) @ solved
    assert np.abs(found - phi[: people.n] @ wanted).max() < 2e-3  # the grid's rounding
    assert np.abs(found - basis.features(mirrored(block)) @ solved).max() < 1e-12
    one_way = exact.basis_from(clips.second(every, block), mirror=False)
    assert np.abs(one_way.features(block) - one_way.features(mirrored(block))).max() > 0.01


def test_sums_of_parts_are_the_sum(people: Archive) -> None:
    clips = Clips(people, exact.Settings(3, (28, 28)))
    every = np.arange(people.n)
    block = block_means(clips.normal, clips.sites.tolist(), {})
    basis = exact.basis_from(clips.second(every, block))
    parts = [every[people.person == name] for name in people.persons()]
    vectors: list[Callable[[Any], Any]] = [
        clips.first,
        lambda r: clips.second(r, block),
        lambda r: exact.gram_sums(basis.features(block[r]), people.y[r], basis),
    ]
    for make, bound in zip(vectors, exact.bounds(people.n)):
        whole = make(every)
        assert np.array_equal(sum(make(r) for r in parts), whole) and np.abs(whole).max() <= bound


def test_a_fold_is_training_without_its_people(people: Archive) -> None:
    """Taking a person's part away gives what an archive without that person gives, bit for bit."""
    folds = loso(people)
    for fold, model, _ in fold_models(people, folds[:3], {}):
        alone = people.select(fold.train)
        clips = Clips(alone, exact.Settings(3, (28, 28)))
        every = np.arange(alone.n)
        warps = exact.warps_from(clips.first(every), clips.names, clips.settings)
        block = block_means(clips.normal, clips.sites.tolist(), warps)
        basis = exact.basis_from(clips.second(every, block), clips.settings.mirror)
        solved = exact.coefficients(exact.gram_sums(basis.features(block), alone.y, basis), basis, 0.3)
        assert dict(model.warps) == warps and np.array_equal(model.coefficients, solved)


def test_the_held_out_person_does_not_register_its_site() -> None:
    """One person moves elsewhere than the rest of its site: without it the site needs no warp."""
    at = np.arange(28) - 13.5
    row, column = np.meshgrid(at, at, indexing="ij")
    rng = np.random.default_rng(0)

    def clip(down: float) -> np.ndarray:
        blob = np.exp(-((row - down) ** 2 + column**2) / 40)[..., None]
        return 128 + 60 * blob * rng.normal(size=3) + rng.normal(size=(28, 28, 3))

    low = [0, 0, 0, 0, 0, 0, 4, 4, 4, 4]  # the last four clips are of the odd person
    archive = make_archive(
        x=np.clip([clip(down) for down in low], 0, 255).astype(np.uint8),
        y=[0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
        dataset=["a"] * 5 + ["b"] * 5,
        subject=["p", "p", "q", "q", "q", "r", "s", "s", "s", "s"],
        clip=[f"c{i}" for i in range(10)],
    )
    warps = {fold.name: model.warps for fold, model, _ in fold_models(archive, loso(archive), {})}
    assert warps["b/r"]["b"] != warps["b/s"]["b"]  # the odd person pulls its site where it takes part
    alone = archive.select(np.flatnonzero(archive.person != "b/s"))
    clips = Clips(alone, exact.Settings(3, (28, 28)))
    wanted = exact.warps_from(clips.first(np.arange(alone.n)), clips.names, clips.settings)
    assert dict(warps["b/s"]) == wanted


def test_held_out_labels_and_pixels_decide_nothing(people: Archive) -> None:
    fold = loso(people)[4]
    before = exact_ridge_predictions(people, [fold])[fold.test]
    x, y = people.x.copy(), people.y.copy()
    y[fold.test] = (y[fold.test] + 1) % 3
    assert np.array_equal(exact_ridge_predictions(replace(people, y=y), [fold])[fold.test], before)
    x[fold.test[1:]] = 255 - x[fold.test[1:]]
    assert np.array_equal(exact_ridge_predictions(replace(people, x=x), [fold])[fold.test[0]], before[0])


def test_it_learns_and_runs_by_name(people: Archive) -> None:
    run = central_predictions(people, loso(people), model="exact-ridge", options={"register": False})
    assert (run.probabilities.argmax(1) == people.y).mean() > 0.8
    assert np.allclose(run.probabilities.sum(1), 1)


def test_an_absent_class_gets_nothing(people: Archive) -> None:
    y = np.where(people.y == 2, 1, people.y)
    archive = replace(people, y=y)
    found = exact_ridge_predictions(archive, loso(archive)[:1])
    assert (found[loso(archive)[0].test][:, 2] == 0).all()


@pytest.mark.parametrize(
    "options", [{"lam": 0.0}, {"lam": float("nan")}, {"register": 1}, {"mirror": "no"}, {"gamma": 1}]
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        exact.Settings.make(3, (28, 28, 3), options)


def test_images_that_do_not_fit_are_refused() -> None:
    for shape in ((2, 28, 28, 2), (2, 30, 28, 3), (2, 7, 7, 3)):
        with pytest.raises(InputError, match="multiples of 7"):
            normalised(np.zeros(shape))
    with pytest.raises(InputError, match="at most"):
        exact.bounds(exact.MOST_CLIPS + 1)


def test_two_classes_are_needed(people: Archive) -> None:
    total = np.zeros(147 + 10_878 + 3, np.int64)
    total[-3:] = 0, 5, 0
    with pytest.raises(InputError, match="few"):
        exact.basis_from(total)
