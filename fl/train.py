"""One federated training into a run folder: checkpoints, metrics, resume, the finished model.

Guarantee: the folder is always either resumable or finished. A checkpoint holds the whole state of the
server, and all coins are functions of (seed, round, client), so a run that was killed and resumed ends in
the same bytes as one that was not.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from merveil.fl import checkpoint, dp_run
from merveil.fl.answering import answering_rule
from merveil.fl.checkpoint import Checkpoint
from merveil.fl.clients import parse_clients, partition
from merveil.fl.dp_ledger import BudgetSpent
from merveil.fl.dp_run import Privacy
from merveil.fl.driver import Federation, Report, Run, State, check_cohort, guarantee
from merveil.fl.exact_train import run_exact, trained_sha256
from merveil.fl.files import sha256
from merveil.fl.model import model_bytes, save_model
from merveil.fl.options import TrainOptions, config_toml, read_config, resolve
from merveil.fl.runs import RunFolder, RunLog, opened, read_manifest, read_metrics, versions
from merveil.fl.strategy import ServerState
from merveil.fl.sum_leakage import warning
from merveil.mer.data.archive import Archive
from merveil.mer.errors import InputError
from merveil.mer.extras import need
from merveil.mer.models.registry import get
from merveil.protocols.policy import SECURE_SCHEMES

RUNNING, FINISHED = "running", "finished"


@dataclass(frozen=True)
class Target:
    """Where a run goes, and how an existing folder is treated."""

    path: Path
    resume: bool = False
    force: bool = False
    tensorboard: bool = False
    ledger: Path | None = None  # of the privacy budget; None: beside the run folder, named by the federation


def stored_options(path: Path) -> tuple[str, dict[str, Any]]:
    """Data source and options that a run folder was made with."""
    read_manifest(path)
    values = read_config(path / "config.toml")
    return str(values.pop("data", "")), values


def train(
    archive: Archive, source: str, options: TrainOptions, target: Target, log: RunLog
) -> dict[str, Any]:
    """Run, or go on with, one federated training; returns the JSON object of `merveil train`.

    source: how the user named the data; it goes into config.toml. InputError: options, folder, or a resume
    with other data or options. OSError: the folder cannot be written; what was saved before stays good.
    KeyboardInterrupt passes through after the finished rounds are saved.
    """
    started = time.perf_counter()
    with opened(target.path, resume=target.resume, force=target.force) as folder:
        log.file = folder.path / "log.txt"
        before = _check_same(folder, archive, options) if target.resume else None
        if get(options.model).kind == "exact":
            return _exact(folder, archive, source, options, log, started, before)
        with dp_run.opened(archive, options, target.path, target.ledger, before) as privacy:
            federation = _federation(archive, options, privacy)
            if before is None:
                values = {"data": source, **options.as_dict()}
                folder.write_config(config_toml(values))
                for remark in dp_run.remarks(options, federation):
                    log.warn(remark)
            elif before["status"] == FINISHED:
                log.info(f"{folder.path} is finished already")
                return _result(folder, options, federation.layout.size, started)
            manifest = _manifest(archive, source, options, federation)
            folder.write_manifest({**manifest, "status": RUNNING})
            state = _start(folder, federation, manifest, log)
            with _tensorboard(folder, target.tensorboard, state.rounds) as board:
                state = _rounds(folder, federation, state, manifest, log, board)
            _finish(folder, archive, options, federation, state, manifest)
            return _result(folder, options, federation.layout.size, started)


def retrained_sha256(archive: Archive, options: TrainOptions, log: RunLog) -> str:
    """Train from the start without a folder; the SHA-256 that its model.safetensors would have.

    InputError for a run with differential privacy: its noise is drawn once and never again.
    """
    if options.private:
        raise InputError(
            "a run with differential privacy cannot be repeated: its noise came from the operating system"
        )
    if get(options.model).kind == "exact":
        return trained_sha256(archive, options)
    federation = _federation(archive, options)
    state = federation.start()
    while state.rounds < options.rounds:
        state, reports = federation.advance(state)
        _tell(log, reports[0], options.rounds)
    return sha256(model_bytes(federation.layout, federation.final(state)[0]))


def _exact(
    folder: RunFolder,
    archive: Archive,
    source: str,
    options: TrainOptions,
    log: RunLog,
    started: float,
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A run of sums alone."""
    if before is not None and before["status"] == FINISHED:
        log.info(f"{folder.path} is finished already")
    else:
        clients = len(partition(archive, parse_clients(options.clients)))
        check_cohort(options.scheme, options.clients, clients)
        told = {"layout_sha256": None, "guarantee": guarantee(options.scheme, clients), "privacy": None}
        run_exact(
            folder, archive, source, options, log, {**_about(archive, source, options, clients), **told}
        )
    size = get(options.model).parameters(0, 0, 0, len(archive.classes))
    return {**_result(folder, options, size, started), "strategy": "exact"}


def _federation(
    archive: Archive,
    options: TrainOptions,
    privacy: Privacy | None = None,
) -> Federation:
    run, given = Run("", partition(archive, parse_clients(options.clients))), privacy or Privacy()
    return Federation(
        archive,
        [run],
        options,
        budget=given.sums,
        mechanism=given.mechanism,
        clip_budget=given.clips,
        step=given.step,
    )


def _check_same(folder: RunFolder, archive: Archive, options: TrainOptions) -> dict[str, Any]:
    """The manifest of the run to go on with. InputError where data or options are not the same."""
    manifest = folder.manifest()
    if manifest["data"]["sha256"] != archive.sha256:
        raise InputError(
            f"{folder.path} was trained on other data than these; it cannot be resumed with them"
        )
    if manifest["config_sha256"] != options.sha256:
        _, values = stored_options(folder.path)
        stored, asked = resolve(values).as_dict(), options.as_dict()
        changed = [name for name, value in asked.items() if stored[name] != value]
        raise InputError(
            f"{folder.path} was trained with another {', '.join(changed)}: resume without changing it, or "
            "start over with --force"
        )
    return manifest


def _manifest(archive: Archive, source: str, options: TrainOptions, federation: Federation) -> dict[str, Any]:
    return {
        **_about(archive, source, options, len(federation.runs[0].clients)),
        "layout_sha256": federation.layout.sha256,
        **_guarantee(options, federation, planned=True),
    }


def _about(archive: Archive, source: str, options: TrainOptions, clients: int) -> dict[str, Any]:
    return {
        "versions": versions(),
        "data": {
            "source": source,
            "sha256": archive.sha256,
            "clips": archive.n,
            "persons": len(archive.persons()),
            "classes": list(archive.classes),
        },
        "config_sha256": options.sha256,
        "seeds": {"training": options.seed},
        "model": options.model,
        "scheme": options.scheme,
        "clients": clients,
        "rounds": options.rounds,
    }


def _guarantee(options: TrainOptions, federation: Federation, *, planned: bool = False) -> dict[str, Any]:
    """The manifest's sentence and, with differential privacy, the figures of what is spent so far."""
    sums = guarantee(options.scheme, len(federation.runs[0].clients))
    said = dp_run.sentence(options, federation, planned=planned)
    return {
        "guarantee": f"{said}; {sums}" if said else sums,
        "privacy": dp_run.figures(options, federation),
    }


def _identity(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a checkpoint must share with the run that loads it."""
    return {
        "options": manifest["config_sha256"],
        "data": manifest["data"]["sha256"],
        "layout": manifest["layout_sha256"],
    }


def _start(folder: RunFolder, federation: Federation, manifest: Mapping[str, Any], log: RunLog) -> State:
    """The state to go on from: the newest whole checkpoint, else a fresh start."""
    found, passed = checkpoint.newest(folder.checkpoints, _identity(manifest))
    for reason in passed:
        log.warn(f"passed over a damaged checkpoint: {reason}")
    folder.keep_metrics(0 if found is None else found.rounds)
    if found is not None:
        log.info(f"resumed after round {found.rounds}")
        return _unpacked(found)
    log.info(
        f"{manifest['clients']} clients, {manifest['data']['clips']} clips, "
        f"{federation.layout.size} parameters, scheme {manifest['scheme']}; "
        f"guarantee: {manifest['guarantee']}"
    )
    small = warning(manifest["model"], manifest["clients"])
    if small and not federation.options.private and manifest["scheme"] in SECURE_SCHEMES:
        log.warn(small)
    return federation.start()


def _rounds(
    folder: RunFolder,
    federation: Federation,
    state: State,
    manifest: Mapping[str, Any],
    log: RunLog,
    board: Any,
) -> State:
    """All rounds that are left; an interrupt saves the finished ones and says how to resume."""
    options, saved = federation.options, state.rounds
    try:
        while state.rounds < options.rounds:
            began = time.perf_counter()
            try:
                state, reports = federation.advance(state)
            except BudgetSpent as error:
                if state.rounds == 0:
                    raise
                log.warn(f"stopped after round {state.rounds} of {options.rounds}: {error}")
                break
            line = {**asdict(reports[0]), "seconds": round(time.perf_counter() - began, 4)}
            folder.add_metrics(line)
            _tell(log, reports[0], options.rounds)
            if board is not None:
                for name in ("survivors", "uplink_bytes", "cut", "norm"):
                    board.add_scalar(name, line[name], state.rounds)
            if state.rounds % options.checkpoint_every == 0 or state.rounds == options.rounds:
                checkpoint.save(folder.checkpoints, _packed(state, manifest))
                saved = state.rounds
    except KeyboardInterrupt:
        if state.rounds > saved:
            checkpoint.save(folder.checkpoints, _packed(state, manifest))
        log.warn(
            f"interrupted after round {state.rounds} of {options.rounds}; "
            f"go on with: merveil train --resume --out {folder.path}"
        )
        raise
    if state.rounds > saved:
        checkpoint.save(folder.checkpoints, _packed(state, manifest))
    return state


def _finish(
    folder: RunFolder,
    archive: Archive,
    options: TrainOptions,
    federation: Federation,
    state: State,
    manifest: Mapping[str, Any],
) -> None:
    rule = answering_rule(archive, options)
    height, width, channels = archive.x.shape[1:]
    digest = save_model(
        folder.path,
        name=options.model,
        options=options.model_options,
        layout=federation.layout,
        params=federation.final(state)[0],
        shape=(height, width, channels),
        meta=archive.meta,
        answering=None if rule is None else rule.to_json(),
        trained={
            "rounds": state.rounds,
            "scheme": options.scheme,
            "seed": options.seed,
            "config_sha256": options.sha256,
            "data_sha256": archive.sha256,
        },
    )
    told = _guarantee(options, federation)
    done = {"status": FINISHED, "rounds_done": state.rounds, "model_sha256": digest}
    folder.write_manifest({**manifest, **told, **done})


def _result(folder: RunFolder, options: TrainOptions, parameters: int, started: float) -> dict[str, Any]:
    manifest, lines = folder.manifest(), read_metrics(folder.path)
    return {
        "run": str(folder.path),
        "model": options.model,
        "parameters": parameters,
        "scheme": options.scheme,
        "strategy": options.strategy,
        "clients": manifest["clients"],
        "client_rule": options.clients,
        "rounds": manifest.get("rounds_done", options.rounds),
        "seed": options.seed,
        "guarantee": manifest["guarantee"],
        "privacy": manifest.get("privacy"),
        "survivors": [min(line["survivors"] for line in lines), max(line["survivors"] for line in lines)],
        "uplink_bytes": sum(line["uplink_bytes"] for line in lines),
        "update_clip": options.update_clip,
        "cut": float(np.mean([line["cut"] for line in lines])),
        "data_sha256": manifest["data"]["sha256"],
        "config_sha256": manifest["config_sha256"],
        "model_sha256": manifest["model_sha256"],
        "versions": manifest["versions"],
        "seconds": round(time.perf_counter() - started, 3),
    }


def _tell(log: RunLog, report: Report, rounds: int) -> None:
    done = report.round + 1
    text = (
        f"round {done}/{rounds}: {report.survivors} of {report.clients} clients, "
        f"{report.uplink_bytes / 1000:.1f} kB up, mean update {report.norm:.3g}"
    )
    every = max(1, rounds // 20)
    (log.info if done % every == 0 or done in (1, rounds) else log.detail)(text, **asdict(report))


def _packed(state: State, manifest: Mapping[str, Any]) -> Checkpoint:
    tensors = {
        "params": state.params[0],
        "first": state.moments[0].first,
        "second": state.moments[0].second,
        "counts": state.counts[0],
        "average": state.moments[0].average,
        "controls": state.controls.astype(np.float64),
    }
    return Checkpoint(state.rounds, tensors, _identity(manifest))


def _unpacked(point: Checkpoint) -> State:
    tensors = point.tensors
    moments = ServerState(tensors["first"], tensors["second"], tensors["average"])
    controls = tensors["controls"].astype(np.float32)
    return State(point.rounds, tensors["params"][None], (moments,), tensors["counts"][None], controls)


@contextlib.contextmanager
def _tensorboard(folder: RunFolder, wanted: bool, rounds: int) -> Iterator[Any]:
    """A SummaryWriter in RUN/tensorboard, or None. ImportError names the extra."""
    if not wanted:
        yield None
        return
    need("tensorboard", "tensorboard")
    writer = need("torch.utils.tensorboard", "mer").SummaryWriter(
        str(folder.path / "tensorboard"), purge_step=rounds + 1 if rounds else None
    )
    try:
        yield writer
    finally:
        writer.close()
