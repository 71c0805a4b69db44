"""Videos to an archive of features: in parallel, cached by content, resumable, and whole or not at all.

Each clip is a pure function of its bytes and the settings, so its result is kept under a key made of both;
a run that was interrupted goes on where it stopped, and an unchanged clip is never computed twice.
"""

import hashlib
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
from merveil.mer.data import folders
from merveil.mer.data.archive import Archive, make_archive
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError
from merveil.mer.features.apex import FROZEN
from merveil.mer.features.extract import Extraction, Settings, extract
from merveil.mer.features.opencv import single_threaded
from merveil.mer.jobs import Job, Work, cache_key, check_layout, find_work, load

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Done:
    """Features of one clip, those of the frames near its apex, and what was decided on the way."""

    x: NDArray[Any]
    near: NDArray[Any]
    onset: int
    apex: int
    source: str
    cached: bool
    aligned: str = "none"


@dataclass
class Report:
    """What happened: clips whose features came from the cache, clips left out and why, how many apexes and
    alignments came from where, and remarks on the source."""

    cached: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    apex: dict[str, int] = field(default_factory=dict)
    aligned: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How to process each clip, the same for all of a run."""

    settings: Settings
    cache: Path | None = None
    preview: Path | None = None


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
    **options: Any,
) -> tuple[Archive, Report]:
    """Features of all clips of a source, as an Archive, and a report.

    cache: folder for finished clips. preview: folder for one picture a clip. skip_bad: leave faulty clips
    out and report them, instead of raising InputError at the first. workers: processes. options: classes,
    labels and numbering of annotated sets (see merveil.mer.data.datasets.find).
    """
    check_layout(layout)
    if workers < 1:
        raise InputError(f"--jobs must be at least 1, not {workers}")
    if layout == "archives":
        raise InputError("archives hold finished features: merveil.mer.data.pool puts them together")
    if layout == "flow-folder":
        return folders.read_flow_folder(source), Report()
    plan = Plan(settings or Settings(), _folder(cache), _folder(preview))
    plan.settings.check()
    work = find_work(source, layout, **options)
    jobs = work.jobs
    report = Report(skipped=_faults(work, skip_bad), notes=list(work.notes))
    results = _run(jobs, plan, workers, skip_bad, report, progress)
    kept = [(job, done) for job, done in zip(jobs, results) if done is not None]
    if not kept:
        first = next(iter(report.skipped.values()), "none is in the task's classes")
        raise InputError(f"no clip of {source} could be used; the first: {first}")
    report.apex = dict(sorted(Counter(done.source for _, done in kept).items()))
    report.aligned = dict(sorted(Counter(done.aligned for _, done in kept).items()))
    return _archive(kept, work.classes, plan.settings, report), report


def _faults(work: Work, skip_bad: bool) -> dict[str, str]:
    """Rows that are no clip, where -> what; InputError with the first unless they may be left out."""
    if work.faults and not skip_bad:
        more = f" (and {len(work.faults) - 1} more faults: see merveil check)" if len(work.faults) > 1 else ""
        raise InputError(f"{work.faults[0]}{more} (--skip-bad leaves faulty clips out)")
    return {fault.partition(": ")[0]: fault for fault in work.faults}


def _folder(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def _archive(
    kept: Sequence[tuple[Job, Done]], classes: tuple[str, ...], settings: Settings, report: Report
) -> Archive:
    jobs = [job for job, _ in kept]
    return make_archive(
        x=np.stack([done.x for _, done in kept]),
        near=np.stack([done.near for _, done in kept]) if settings.apex_jitter else None,
        y=np.array([job.label for job in jobs], dtype=np.int64),
        dataset=np.array([job.dataset for job in jobs]),
        subject=np.array([job.subject for job in jobs]),
        clip=np.array([job.clip for job in jobs]),
        site=np.array([job.site for job in jobs]),
        meta=Meta(
            classes=classes,
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
    """One clip through the whole chain, or out of the cache, where its picture is done as well."""
    key = cache_key(job, plan.settings)
    kept = plan.cache / f"{key}.npz" if plan.cache else None
    picture = plan.preview / _picture_name(job, key) if plan.preview else None
    drawn = picture is None or picture.is_file()
    if kept is not None and drawn and (found := _read_cache(kept)) is not None:
        return found
    frames, onset, apex = load(job, plan.settings, whole=picture is not None)
    made = extract(frames, onset, apex, plan.settings, least=FROZEN)  # its label says that it moves
    spotted = made.spotted
    done = Done(made.x, made.near, spotted.onset, spotted.apex, spotted.source, False, made.aligned)
    if picture is not None:
        _write_preview(picture, job, made, frames)
    if kept is not None:
        with writing(kept) as file:
            np.savez(
                file,
                x=done.x,
                near=done.near,
                frames=np.array([done.onset, done.apex]),
                source=np.array(done.source),
                aligned=np.array(done.aligned),
            )
    return done


def _read_cache(path: Path) -> Done | None:
    """A finished clip, or None where there is none, or none that can be read: it is then made anew."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as entry:
            onset, apex = (int(i) for i in entry["frames"])
            source, aligned = str(entry["source"]), str(entry["aligned"])
            near = entry["near"] if "near" in entry else entry["x"][None][:0]  # of before there was any
            return Done(entry["x"], near, onset, apex, source, True, aligned)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _picture_name(job: Job, key: str) -> str:
    """Names the clip for people, and its content and settings, so that a picture is never of other ones."""
    safe = re.sub(r"[^\w.-]+", "_", job.name)
    return f"{safe}_{hashlib.sha256(f'{job.name} {key}'.encode()).hexdigest()[:8]}.png"


def _write_preview(path: Path, job: Job, made: Extraction, frames: NDArray[np.uint8]) -> None:
    from merveil.mer.preview import film_of, prepared_sheet, write_png

    film = film_of(frames, made)
    write_png(path, prepared_sheet(made, f"{job.name}  {job.kind}", film, job.first))
