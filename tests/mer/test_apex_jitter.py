"""Frames near the apex: made by `prepare`, kept by the archive, shown in training and nowhere else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from merveil.mer import jobs, prepare
from merveil.mer import loso as module
from merveil.mer.coins import Coins
from merveil.mer.data import synthetic
from merveil.mer.data.archive import Archive, load_archive, make_archive, save_archive
from merveil.mer.data.pool import pool
from merveil.mer.data.splits import loso
from merveil.mer.errors import InputError
from merveil.mer.features.extract import Settings, features, near_apex
from merveil.mer.models.stacked import build
from merveil.mer.recipe import Recipe
from merveil.mer.train import prepared, train_stack

SOURCE = "synthetic:subjects=2,clips=3,seed=5"
FAST = Settings(flow="dis", apex_jitter=2)
NAMES = ("y", "dataset", "subject", "clip")


def with_near(archive: Archive, versions: int = 3, seed: int = 0) -> Archive:
    """The archive with noisy copies of each clip's image near its apex."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-20, 21, (archive.n, versions, *archive.x.shape[1:]))
    near = np.clip(archive.x[:, None].astype(int) + noise, 0, 255).astype(np.uint8)
    return make_archive(x=archive.x, near=near, **{name: getattr(archive, name) for name in NAMES})


def test_which_frames_are_near_an_apex() -> None:
    assert near_apex(0, 10, 40, 2) == [8, 9, 11, 12]
    assert near_apex(0, 2, 4, 3) == [1, 1, 1, 3, 3, 3]  # none at the onset, before it or past the end
    assert near_apex(0, 10, 40, 0) == []


def test_prepare_makes_what_each_frame_alone_would_give(tmp_path: Path) -> None:
    made, _ = prepare.prepare_archive(SOURCE, "synthetic", settings=FAST, cache=tmp_path)
    plain, _ = prepare.prepare_archive(SOURCE, "synthetic", settings=Settings(flow="dis"))
    assert made.near is not None and made.near.shape == (6, 4, 28, 28, 3)
    assert plain.near is None and (made.x == plain.x).all() and made.meta == plain.meta
    source = synthetic.parse_source(SOURCE)
    clip = synthetic.make_clip(source, 1, 2)
    for version, step in enumerate((-2, -1, 1, 2)):
        alone = features(clip.frames, clip.onset, clip.apex + step, Settings(flow="dis"))
        assert (made.near[5, version] == alone).all() and (alone != made.x[5]).any()
    again, report = prepare.prepare_archive(SOURCE, "synthetic", settings=FAST, cache=tmp_path)
    assert report.cached == 6 and again.sha256 == made.sha256 != plain.sha256


def test_only_the_frames_about_a_known_apex_are_read(
    sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "casme2"
    sets.make(root, "casme2")
    full = {"flow": "dis", "face": "full"}
    job = next(j for j in jobs.find_work(str(root), "casme2").jobs if j.apex is not None)
    wide, two = Settings(**full, apex_jitter=2), Settings(**full)
    assert job.apex == 3 and len(job.frames) == 8
    read: list[int] = []
    genuine = jobs.read_frames
    monkeypatch.setattr(jobs, "read_frames", lambda paths: (read.append(len(paths)), genuine(paths))[1])
    frames, onset, apex = jobs.load(job, wide)
    whole = jobs.load(job, wide, whole=True)
    assert read == [6, 8] and (onset, apex) == (0, 3)  # the onset and frames 1 to 5
    assert (frames == whole[0][:6]).all()
    assert jobs.cache_key(job, wide) != jobs.cache_key(job, two)
    unseen, seen = job.frames[7], job.frames[5]
    key = jobs.cache_key(job, wide)
    unseen.write_bytes(seen.read_bytes())
    assert jobs.cache_key(job, wide) == key
    seen.write_bytes(job.frames[0].read_bytes())
    assert jobs.cache_key(job, wide) != key


@pytest.mark.parametrize("jitter", [-1, 17])
def test_a_reach_out_of_range_is_named(jitter: int) -> None:
    with pytest.raises(InputError, match="0 to 16 frames"):
        Settings(apex_jitter=jitter).check()


def test_the_archive_keeps_selects_and_pools_them(toy_archive: Archive, tmp_path: Path) -> None:
    made = with_near(toy_archive)
    assert made.near is not None and made.sha256 != toy_archive.sha256
    again = load_archive(save_archive(tmp_path / "a.npz", **columns(made)))
    assert again.near is not None and (again.near == made.near).all() and again.notices == ()
    rows = np.array([7, 3])
    part = made.select(rows)
    assert part.near is not None and (part.near == made.near[rows]).all()
    assert part.sha256 != toy_archive.select(rows).sha256
    halves = [np.flatnonzero(made.dataset == name) for name in np.unique(made.dataset)]
    for k, half in enumerate(halves):
        save_archive(tmp_path / f"{k}.npz", **columns(made.select(half)))
    both = pool([tmp_path / f"{k}.npz" for k in range(len(halves))])
    assert both.near is not None and (both.near == made.near[np.concatenate(halves)]).all()
    save_archive(tmp_path / "0.npz", **columns(toy_archive.select(halves[0])))
    with pytest.raises(InputError, match=r"differ in form .*and 3 near the apex"):
        pool([tmp_path / f"{k}.npz" for k in range(len(halves))])


def columns(archive: Archive) -> dict[str, Any]:
    return {"x": archive.x, "near": archive.near, **{name: getattr(archive, name) for name in NAMES}}


def test_a_frame_near_one_persons_apex_cannot_be_another_persons_clip(toy_archive: Archive) -> None:
    made = columns(with_near(toy_archive))
    other = int(np.flatnonzero(toy_archive.person != toy_archive.person[0])[0])
    made["near"][other, 1] = toy_archive.x[0]
    with pytest.raises(InputError, match="equal content under two subjects"):
        make_archive(**made)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda near: near[:-1], "near has shape"),
        (lambda near: near[:, :0], "at least one version"),
        (lambda near: near[..., :2], "near has shape"),
        (lambda near: near.astype(np.float32), "that of x, uint8"),
    ],
)
def test_faults_are_named(toy_archive: Archive, spoil: Any, says: str) -> None:
    made = columns(with_near(toy_archive))
    with pytest.raises(InputError, match=says):
        make_archive(**{**made, "near": spoil(made["near"])})


def test_broken_numbers_are_named(toy_archive: Archive) -> None:
    made = columns(with_near(toy_archive))
    made["x"], made["near"] = (made[name].astype(np.float32) for name in ("x", "near"))
    made["near"][7, 2, 3, 4, 1] = np.nan
    with pytest.raises(InputError, match=r"row 7\) has NaN or infinite values in near"):
        make_archive(**made)


def test_a_step_takes_the_images_that_the_coins_say(toy_archive: Archive) -> None:
    archive = with_near(toy_archive)
    assert archive.near is not None
    net = build("ststnet", 3, 28, 28, 3)
    x, versions = prepared(net, archive, 0.5)
    assert versions == 3 and len(x) == 4 * archive.n
    rows = np.array([[0, 1, 2, 3, 4, 5, 40], [20, 21, 22, 23, 24, -1, -1]])
    params, seeds = np.stack([net.init(0), net.init(1)]), [3, 4]
    common: dict[str, Any] = {"steps": 1, "lr": 1e-3, "seeds": seeds, "threads": 1}
    jitter: dict[str, Any] = {"versions": versions, "apex_jitter": 0.5}
    found = train_stack(net, params, x, archive.y, rows=rows, **jitter, **common)
    drawn = Coins(seeds, [0, 0]).uniform("apex", 7, 2)
    images = archive.x.copy()
    swapped = 0
    for model, clips in enumerate(rows):
        for place, clip in enumerate(clips[clips >= 0]):
            if drawn[model, place, 0] < 0.5:
                images[clip] = archive.near[clip, int(3 * drawn[model, place, 1])]
                swapped += 1
    assert 3 <= swapped <= 9
    by_hand = train_stack(net, params, net.prepare(images), archive.y, rows=rows, **common)
    assert np.allclose(found, by_hand, atol=1e-6)
    still = train_stack(net, params, net.prepare(archive.x), archive.y, rows=rows, **common)
    assert not np.allclose(found, still, atol=1e-5)
    idle = train_stack(net, params, x, archive.y, rows=rows, versions=versions, **common)
    assert (idle == still).all()


def test_every_version_is_shown_and_as_often_as_asked() -> None:
    from merveil.mer.train import _Shown

    rows = np.tile(np.arange(8), (200, 1))
    at = np.concatenate([_Shown(0.5, 4, 8).at(rows, Coins(range(200), [s] * 200)) for s in range(5)])
    own = at < 8
    assert abs(own.mean() - 0.5) < 0.03  # 8,000 draws: five deviations
    clip, version = np.divmod(at[~own] - 8, 4)
    assert (clip == np.tile(np.arange(8), (1000, 1))[~own]).all()
    share = np.bincount(version, minlength=4) / len(version)
    assert np.abs(share - 0.25).max() < 0.035
    assert (_Shown(1.0, 2, 8).at(np.array([[1, -1]]), Coins([0], [0]))[0, 1]) == -1


@pytest.mark.parametrize("model", ["flow-mlp", "ststnet"])
def test_held_out_frames_do_not_change_a_model(toy_archive: Archive, model: str) -> None:
    first = with_near(toy_archive)
    fold = loso(first)[0]
    assert first.near is not None
    near = first.near.copy()
    near[fold.test] = 255 - near[fold.test]
    spoilt = make_archive(**{**columns(first), "near": near})
    near = first.near.copy()
    near[fold.train] = 255 - near[fold.train]
    other = make_archive(**{**columns(first), "near": near})
    recipe = Recipe(epochs=3, lr=1e-3, apex_jitter=0.7)
    net = module.get(model).build((28, 28, 3), 3, {})
    runs = [module.FoldStack(archive, [fold], net, recipe, 0) for archive in (first, spoilt, other)]
    for run in runs:
        run.train(3)
    assert (runs[0].params == runs[1].params).all() and (runs[0].params != runs[2].params).any()
    assert (runs[0].predictions()[fold.test] == runs[1].predictions()[fold.test]).all()


def test_it_is_asked_for_by_name_and_refused_without_frames(toy_archive: Archive) -> None:
    folds, quick = loso(toy_archive)[:2], {"epochs": 2}
    made = with_near(toy_archive)
    plain, unasked, asked = (
        module.central_predictions(a, folds, model="flow-mlp", options={**quick, **more})
        for a, more in ((toy_archive, {}), (made, {}), (made, {"apex_jitter": 0.5}))
    )
    assert np.array_equal(plain.probabilities, unasked.probabilities, equal_nan=True)
    assert not np.array_equal(asked.probabilities, plain.probabilities, equal_nan=True)
    assert asked.info["recipe"]["apex_jitter"] == 0.5
    with pytest.raises(InputError, match="--apex-jitter 2"):
        module.central_predictions(toy_archive, folds, model="flow-mlp", options={"apex_jitter": 0.5})
    with pytest.raises(InputError, match=r"chance in 0\.\.1"):
        Recipe(epochs=1, lr=1e-3, apex_jitter=1.5)
    net = build("flow-mlp", 3, 28, 28, 3)
    with pytest.raises(InputError, match="versions of each clip"):
        train_stack(
            net, net.init(0)[None], net.prepare(made.x), made.y, steps=1, lr=1e-3, seeds=[0],
            rows=np.arange(4)[None], apex_jitter=0.5,
        )  # fmt: skip
