"""Preparation: the same for any number of processes, resumable from its cache, clear about faults."""

import os
from pathlib import Path

import numpy as np
import pytest

from merveil.mer import jobs, prepare
from merveil.mer.data import synthetic
from merveil.mer.errors import InputError
from merveil.mer.features.extract import Settings
from merveil.mer.features.opencv import opencv

SOURCE = "synthetic:subjects=2,clips=3,seed=5"
FAST = Settings(flow="dis")


def video_tree(root: Path, clips: int = 2) -> Path:
    """Two people's synthetic clips as folders of frames."""
    source = synthetic.Source(2, 4, 1)
    for subject in range(2):
        for index in range(clips):
            clip = synthetic.make_clip(source, subject, index)
            kind = synthetic.CLASSES[(subject + index) % 2]
            folder = root / "lab" / clip.subject / kind / clip.clip
            folder.mkdir(parents=True)
            for number, frame in enumerate(clip.frames):
                opencv().imwrite(str(folder / f"{number}.png"), frame)
    return root


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    one, _ = prepare.prepare_archive(SOURCE, "synthetic", settings=FAST)
    two, report = prepare.prepare_archive(
        SOURCE, "synthetic", settings=FAST, workers=2, progress=lambda *count: seen.append(count)
    )
    assert one.sha256 == two.sha256 and report.apex == {"annotated": 6}
    assert seen == [(i, 6) for i in range(1, 7)]


def test_a_finished_clip_is_never_computed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = prepare.prepare_archive(SOURCE, "synthetic", settings=FAST, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 6
    monkeypatch.setattr(prepare, "extract", lambda *a, **k: pytest.fail("computed again"))
    again, report = prepare.prepare_archive(SOURCE, "synthetic", settings=FAST, cache=tmp_path)
    assert again.sha256 == first.sha256 and report.cached == 6


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare_archive(SOURCE, "synthetic", settings=FAST, cache=tmp_path, progress=stop)
    whole, report = prepare.prepare_archive(SOURCE, "synthetic", settings=FAST, cache=tmp_path)
    assert report.cached == 4
    assert whole.sha256 == prepare.prepare_archive(SOURCE, "synthetic", settings=FAST)[0].sha256


@pytest.mark.parametrize("junk", [b"", b"junk", b"PK\x03\x04 cut off"])
def test_a_damaged_cache_entry_is_made_anew(tmp_path: Path, junk: bytes) -> None:
    source = "synthetic:subjects=2,clips=2"
    first, _ = prepare.prepare_archive(source, "synthetic", settings=FAST, cache=tmp_path)
    sorted(tmp_path.iterdir())[0].write_bytes(junk)
    again, report = prepare.prepare_archive(source, "synthetic", settings=FAST, cache=tmp_path)
    assert again.sha256 == first.sha256 and report.cached == 3


class Killer:
    """Ends the process that unpickles it, as the kernel does to one without memory."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)


def test_a_killed_worker_is_said() -> None:
    with pytest.raises(ChildProcessError, match="a worker process was killed"):
        list(prepare._parallel([Killer()], prepare.Plan(FAST), 1))  # type: ignore[list-item]


def test_other_settings_and_other_bytes_have_other_keys(tmp_path: Path) -> None:
    root = video_tree(tmp_path, clips=1)
    job = jobs.find_jobs(str(root), "video-folder")[0]
    keys = {
        jobs.cache_key(job, settings)
        for settings in (FAST, Settings(), Settings(flow="dis", light="none"), Settings(flow="dis", crop=168))
    }
    assert len(keys) == 4
    assert job.path is not None
    frame = sorted(job.path.iterdir())[3]
    opencv().imwrite(str(frame), opencv().imread(str(frame), 0) // 2)
    assert jobs.cache_key(job, FAST) not in keys


def test_videos_without_annotation_are_spotted_and_pictured(tmp_path: Path) -> None:
    root = video_tree(tmp_path / "data")
    made, report = prepare.prepare_archive(
        str(root), "video-folder", settings=FAST, preview=tmp_path / "pictures"
    )
    assert report.apex == {"spotted": 4} and made.meta.apex == "spotted 4"
    assert made.persons() == ["lab/s01", "lab/s02"] and set(made.site) == {"lab"}
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert len(pictures) == 4
    sheet = opencv().imread(str(pictures[0]))
    assert sheet.shape[1] == 840 and sheet.shape[0] > 600 and sheet.std() > 20


def test_a_faulty_clip_stops_or_is_left_out(tmp_path: Path) -> None:
    root = video_tree(tmp_path)
    bad = root / "lab" / "s01" / "positive" / "bad.mp4"
    bad.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"lab/s01/bad: .*bad.mp4 is empty .*--skip-bad leaves faulty clips out"
    ):
        prepare.prepare_archive(str(root), "video-folder", settings=FAST)
    made, report = prepare.prepare_archive(str(root), "video-folder", settings=FAST, skip_bad=True)
    assert made.n == 4 and list(report.skipped) == ["lab/s01/bad"]


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "lab" / "s01" / "positive"
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"no clip of .* could be used; the first: lab/s01/a"):
        prepare.prepare_archive(str(tmp_path), "video-folder", settings=FAST, skip_bad=True)


def test_unknown_layouts_and_worker_counts() -> None:
    with pytest.raises(InputError, match="'casme9': choose one of synthetic, flow-folder, video-folder"):
        prepare.prepare_archive("x", "casme9")
    with pytest.raises(InputError, match="archives hold finished features"):
        prepare.prepare_archive("x", "archives")
    with pytest.raises(InputError, match="--jobs must be at least 1, not 0"):
        prepare.prepare_archive(SOURCE, "synthetic", workers=0)


def test_compat_mode_is_bytes(tmp_path: Path) -> None:
    settings = Settings(flow="dis", normalise="ststnet-compat")
    made, _ = prepare.prepare_archive("synthetic:subjects=2,clips=2", "synthetic", settings=settings)
    assert made.x.dtype == np.uint8 and made.x.max() == 255
    assert made.meta.normalisation.startswith("ststnet-compat")
