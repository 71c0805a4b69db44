"""Videos to an archive of features: in parallel, cached by content, resumable, and whole or not at all.

Each clip is a pure function of its bytes and the settings, so its result is kept under a key made of both;
a run that was interrupted goes on where it stopped, and an unchanged clip is never computed twice.
"""

import hashlib
import json
import re
import signal
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.atomic import writing
from merveil.mer.data import folders, synthetic
from merveil.mer.data.archive import Archive, make_archive
from merveil.mer.data.meta import CLASSES, Meta
from merveil.mer.data.video import content_hash, read_clip
from merveil.mer.errors import InputError
from merveil.mer.features.apex import FROZEN
from merveil.mer.features.extract import Extraction, Settings, extract, settings_key
from merveil.mer.features.opencv import single_threaded

LAYOUTS = ("synthetic", "flow-folder", "video-folder")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """One clip to be processed: `path` of a video, or (source, row, column) of a synthetic clip."""

    dataset: str
    subject: str
    clip: str
    site: str
    label: int
    path: Path | None = None
    source: synthetic.Source | None = None
    row: int = 0
    column: int = 0

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.subject}/{self.clip}"


@dataclass(frozen=True, eq=False)
class Done:
    """Features of one clip and what was decided on the way."""

    x: NDArray[Any]
    onset: int
    apex: int
    source: str
    cached: bool


@dataclass
class Report:
    """What happened: clips whose features came from the cache, clips left out and why, apex sources."""

    cached: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    apex: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How to process each clip, the same for all of a run."""

    settings: Settings
    cache: Path | None = None
    preview: Path | None = None


def check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")


def prepare_archive(
    source: str,
    layout: str,
    *,
    settings: Settings | None = None,
    workers: int = 1,
    cache: str | Path | None = None,
    preview: str | Path | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> tuple[Archive, Report]:
    """Features of all clips of a source, as an Archive, and a report.

    cache: folder for finished clips. preview: folder for one picture a clip. skip_bad: leave faulty clips
    out and report them, instead of raising InputError at the first. workers: processes.
    """
    check_layout(layout)
    if workers < 1:
        raise InputError(f"--workers must be at least 1, not {workers}")
    if layout == "flow-folder":
        return folders.read_flow_folder(source), Report()
    plan = Plan(settings or Settings(), _folder(cache), _folder(preview))
    plan.settings.check()
    jobs = find_jobs(source, layout)
    report = Report()
    results = _run(jobs, plan, workers, skip_bad, report, progress)
    kept = [(job, done) for job, done in zip(jobs, results) if done is not None]
    if not kept:
        raise InputError(
            f"no clip of {source} could be used; the first: {next(iter(report.skipped.values()))}"
        )
    report.apex = dict(sorted(Counter(done.source for _, done in kept).items()))
    return _archive(kept, plan.settings, report), report


def _folder(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def find_jobs(source: str, layout: str) -> list[Job]:
    """The clips of a source, in a fixed order."""
    if layout == "video-folder":
        items = folders.scan(source, layout)
        return [Job(i.dataset, i.subject, i.clip, i.dataset, i.label, path=i.path) for i in items]
    made = synthetic.parse_source(source)
    table = synthetic.labels(made)
    jobs = []
    for row, column in np.ndindex(*table.shape):
        subject, clip, site = synthetic.names(row, column)
        label = int(table[row, column])
        jobs.append(Job(synthetic.DATASET, subject, clip, site, label, source=made, row=row, column=column))
    return jobs


def _archive(kept: Sequence[tuple[Job, Done]], settings: Settings, report: Report) -> Archive:
    jobs = [job for job, _ in kept]
    return make_archive(
        x=np.stack([done.x for _, done in kept]),
        y=np.array([job.label for job in jobs], dtype=np.int64),
        dataset=np.array([job.dataset for job in jobs]),
        subject=np.array([job.subject for job in jobs]),
        clip=np.array([job.clip for job in jobs]),
        site=np.array([job.site for job in jobs]),
        meta=Meta(
            classes=CLASSES,
            flow=settings.describe_flow(),
            normalisation=settings.describe_normalisation(),
            apex=", ".join(f"{name} {count}" for name, count in report.apex.items()),
        ),
    )


def _run(
    jobs: Sequence[Job],
    plan: Plan,
    workers: int,
    skip_bad: bool,
    report: Report,
    progress: Progress | None,
) -> list[Done | None]:
    results: list[Done | None] = [None] * len(jobs)
    outcomes = _inline(jobs, plan) if workers == 1 else _parallel(jobs, plan, workers)
    for count, (index, outcome) in enumerate(outcomes, 1):
        if isinstance(outcome, Done):
            results[index] = outcome
            report.cached += outcome.cached
        elif skip_bad:
            report.skipped[jobs[index].name] = outcome
        else:
            raise InputError(f"{outcome} (--skip-bad leaves faulty clips out)")
        if progress is not None:
            progress(count, len(jobs))
    return results


def _inline(jobs: Sequence[Job], plan: Plan) -> Iterator[tuple[int, Done | str]]:
    for index, job in enumerate(jobs):
        yield index, attempt(job, plan)


def _parallel(jobs: Sequence[Job], plan: Plan, workers: int) -> Iterator[tuple[int, Done | str]]:
    """Results as they come. Fresh processes, since OpenCV's threads do not survive a fork; on an error or an
    interrupt what has not begun is cancelled, and what runs finishes (under a second) into the cache."""
    executor = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker)
    pending: dict[Future[Done | str], int] = {}
    waiting = iter(enumerate(jobs))
    try:
        while True:
            while len(pending) < 2 * workers and (item := next(waiting, None)) is not None:
                pending[executor.submit(attempt, item[1], plan)] = item[0]
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process was killed, perhaps for want of memory: finished clips are kept; repeat the "
            "command, with fewer --workers if need be"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a worker finishes its clip
    single_threaded()


def attempt(job: Job, plan: Plan) -> Done | str:
    """Process one clip; a fault of the clip comes back as its message, so that others can go on."""
    try:
        return process(job, plan)
    except InputError as error:
        return f"{job.name}: {error}"


def process(job: Job, plan: Plan) -> Done:
    """One clip through the whole chain, or out of the cache."""
    key = cache_key(job, plan.settings)
    kept = plan.cache / f"{key}.npz" if plan.cache else None
    if kept is not None and plan.preview is None and (found := _read_cache(kept)) is not None:
        return found
    frames, onset, apex = load(job)
    made = extract(frames, onset, apex, plan.settings, least=FROZEN)  # its label says that it moves
    done = Done(made.x, made.spotted.onset, made.spotted.apex, made.spotted.source, cached=False)
    if plan.preview is not None:
        _write_preview(plan.preview, job, made)
    if kept is not None:
        with writing(kept) as file:
            np.savez(file, x=done.x, frames=np.array([done.onset, done.apex]), source=np.array(done.source))
    return done


def load(job: Job) -> tuple[NDArray[np.uint8], int | None, int | None]:
    """Frames and, where known, annotated onset and apex."""
    if job.source is not None:
        clip = synthetic.make_clip(job.source, job.row, job.column)
        return clip.frames, clip.onset, clip.apex
    if job.path is None:
        raise ValueError("a job has a path or a synthetic source")
    return read_clip(job.path), None, None


def cache_key(job: Job, settings: Settings) -> str:
    """SHA-256 over the clip's content and every setting and version its features depend on."""
    if job.source is not None:
        content = f"{job.source} row={job.row} column={job.column} version={synthetic.VERSION}"
    else:
        content = content_hash(job.path or "")
    record = json.dumps([content, settings_key(settings)], sort_keys=True)
    return hashlib.sha256(record.encode()).hexdigest()


def _read_cache(path: Path) -> Done | None:
    """A finished clip, or None where there is none, or none that can be read: it is then made anew."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as entry:
            onset, apex = (int(i) for i in entry["frames"])
            return Done(entry["x"], onset, apex, str(entry["source"]), cached=True)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _write_preview(folder: Path, job: Job, made: Extraction) -> None:
    from merveil.mer.preview import contact_sheet, write_png

    safe = re.sub(r"[^\w.-]+", "_", job.name)
    tag = hashlib.sha256(job.name.encode()).hexdigest()[:6]  # two names may look alike once made safe
    write_png(folder / f"{safe}_{tag}.png", contact_sheet(made, f"{job.name}  {CLASSES[job.label]}"))
