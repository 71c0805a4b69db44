"""`merveil server`: a federated training over sites, checkpointed after every round.

Guarantee: what the server gets from a site is frames of a scheme's sessions, a few words where a site could
not take part, and nothing else. The run folder is always resumable or finished: a server that was killed
goes on after the last round that is in it. A round that was under way is given up and asked for again under
a new number, since members refuse one that they answered.

The server has no data: a model's score is for the sites to take.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl import checkpoint, coins
from merveil.fl.checkpoint import Checkpoint
from merveil.fl.deploy import private, tls
from merveil.fl.deploy.account import Account, account
from merveil.fl.deploy.config import ServerSettings, address
from merveil.fl.deploy.counter import RoundCounter
from merveil.fl.deploy.hub import Hub
from merveil.fl.deploy.member import Public
from merveil.fl.deploy.rounds import Done, Progress, Rounds
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Work, pack_model
from merveil.fl.dp_ledger import BudgetSpent
from merveil.fl.driver import COUNT_BITS, COUNT_CLIP, federated_net
from merveil.fl.files import read_json, write_json
from merveil.fl.model import save_model
from merveil.fl.options import config_toml
from merveil.fl.runs import RunFolder, RunLog, opened, versions
from merveil.fl.strategy import ServerState
from merveil.fl.sum_leakage import warning
from merveil.fl.update import Layout
from merveil.mer.data.meta import Meta
from merveil.mer.errors import InputError
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import Aborted
from merveil.protocols.identity import Roster
from merveil.protocols.policy import SECURE_SCHEMES, Policy
from merveil.protocols.registry import get

STATUS = "status.json"
RUNNING, FINISHED, STOPPED, SPENT = "running", "finished", "stopped", "budget_spent"
OVER = "the training is finished"
OVER_SPENT = "the training is over: the privacy budget is spent"


@dataclass(frozen=True, eq=False)
class State:
    """What the server holds after `rounds` rounds: float64 params [P], moments, class counts [K]."""

    rounds: int
    params: NDArray[np.float64]
    moments: ServerState
    counts: NDArray[np.float64]


class Server:
    """One training. InputError: settings that do not go together; LocalError: files that are missing."""

    def __init__(self, settings: ServerSettings, log: RunLog) -> None:
        self._settings, self._log = settings, log
        self._options = settings.options
        self._public = Public.load(settings.home)
        self._public.roster.check_time(int(time.time()))
        self._net = federated_net(self._options, settings.data.shape, len(settings.data.classes))
        self._layout = Layout.of(self._net.layout)
        self._strategy = self._options.server()
        self._counter = RoundCounter(settings.home / "rounds.json", self.roster.federation)
        self._account: Account | None = None
        train = Work("train", 0, self._options, settings.data)
        params = self._make_task(1, 1, self._layout.size, train).params()  # what cannot work fails now
        least = Policy(anchor=bytes(32)).min_honest
        if self._options.scheme in SECURE_SCHEMES and params.honest < least:
            log.warn(
                f"{len(self.roster)} members: a sum may hold {params.honest} honest inputs, sites refuse "
                f"fewer than {least} unless their policy has allow_small_cohort; such a sum hides little"
            )
        small = warning(self._options.model, len(self.roster))
        if small and self._options.scheme in SECURE_SCHEMES:
            log.warn(small)
        self._progress = Progress()
        self._state: State | None = None
        self.port = 0
        self._aborted = 0

    @property
    def roster(self) -> Roster:
        return self._public.roster

    def run(self, *, force: bool = False) -> dict[str, Any]:
        """Serve until the training is finished; the JSON object of `merveil server`.

        Goes on with the run in the folder unless `force` starts it over. Aborted after `max_aborted` rounds
        in a row without a sum. KeyboardInterrupt passes; every finished round is saved by then. A privacy
        budget that is spent ends the training with the rounds done so far; LocalError (BudgetSpent) where
        there are none.
        """
        run, home = self._settings.run, self._settings.home
        resume = (run / "manifest.json").is_file() and not force
        with opened(run, resume=resume, force=force) as folder:
            self._log.file = folder.path / "log.txt"
            before = folder.manifest() if resume else None
            if before is not None:
                self._check_same(folder, before)
            group = self.roster
            with account(
                self._options, home, group.federation, self._layout.size, len(group), before
            ) as self._account:
                manifest = self._manifest()
                folder.write_config(config_toml({"data": "sites", **self._options.as_dict()}))
                folder.write_manifest({**manifest, "status": RUNNING})
                if self._account is not None:
                    self._log.info(f"guarantee: {self._account.sentence()}")
                    for remark in self._account.remarks:
                        self._log.warn(remark)
                return asyncio.run(self._serve(folder, manifest))

    # Tasks

    def _make_task(self, round_: int, attempt: int, dim: int, work: Work) -> Task:
        options, counts = self._options, work.kind == "counts"
        if self._account is not None and not counts:
            return self._noisy_task(round_, attempt, work, self._account.mechanism)
        model, config = work.hashes()
        return Task(
            scheme=options.scheme,
            round=round_,
            attempt=attempt,
            cohort=len(self.roster),
            dim=dim,
            bits=COUNT_BITS if counts else options.bits,
            clip=COUNT_CLIP if counts else float(options.update_clip),
            max_weight=1 if counts else options.max_weight,
            threshold=0,
            model_hash=model,
            config_hash=config,
        )

    def _noisy_task(self, round_: int, attempt: int, work: Work, mechanism: Mechanism) -> Task:
        """On the mechanism's grid and without weights: a clip count is private."""
        text = private.encode(mechanism)
        model, config = work.hashes(text)
        return Task(
            scheme=self._options.scheme,
            round=round_,
            attempt=attempt,
            cohort=len(self.roster),
            dim=mechanism.size,
            bits=mechanism.bits,
            clip=mechanism.clip,
            max_weight=1,
            threshold=0,
            model_hash=model,
            config_hash=config,
            mechanism=text,
        )

    def _offer(self) -> dict[str, object]:
        """What a site may check before it takes part: the server's clock and the parameters to come."""
        work = Work("train", 0, self._options, self._settings.data)
        task = self._make_task(1, 1, self._layout.size, work)
        return {
            "time": time.time(),
            "round": 0 if self._state is None else self._state.rounds,
            "rounds": self._options.rounds,
            "task": task.encode().decode(),
            "work": work.head(),
        }

    # Running

    async def _serve(self, folder: RunFolder, manifest: Mapping[str, Any]) -> dict[str, Any]:
        settings, began = self._settings, time.monotonic()
        self._state = self._start(folder, manifest)
        context = tls.server_context(settings.certificate, settings.key)
        certificate = tls.fingerprint(tls.certificate_der(settings.certificate))
        limit = settings.max_megabytes * 1_000_000
        hub = Hub(self.roster, certificate, limit, self._log, self._offer)
        told = self._teller(folder, hub)
        self.port = await hub.listen(*address(settings.listen), context)
        self._log.info(f"listening on port {self.port} for the {len(self.roster)} members of the roster")
        rounds = Rounds(hub, self.roster, settings, self._log, told, self._account)
        last, ended = "", STOPPED
        try:
            ended = await self._train(folder, manifest, rounds)
            last = OVER if ended == FINISHED else OVER_SPENT
        except BudgetSpent:
            last, ended = OVER_SPENT, SPENT
            raise
        except Aborted as error:
            last = f"the server gave up: {error.code.name}"
            raise
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(hub.close(last), 5)
            told(Progress(self._progress.round, 0, ended, []))
        return self._finish(folder, ended, time.monotonic() - began)

    def _teller(self, folder: RunFolder, hub: Hub) -> Any:
        """Writes status.json when something changed: names and phases, no figure of any site."""
        shown: list[dict[str, Any]] = [{}]

        def told(progress: Progress) -> None:
            self._progress = progress
            assert self._state is not None
            status = {
                "rounds_done": self._state.rounds,
                "rounds": self._options.rounds,
                "protocol_round": progress.round,
                "attempt": progress.attempt,
                "phase": progress.phase,
                "waiting_for": progress.waiting,
                "connected": sorted(hub.name(i) for i in hub.peers),
                "members": len(self.roster),
                "scheme": self._options.scheme,
                "port": self.port,
                "privacy": self._privacy(),
            }
            if status != shown[0]:
                write_json(folder.path / STATUS, {**status, "updated": int(time.time())})
                shown[0] = status

        return told

    def _privacy(self) -> dict[str, Any] | None:
        return None if self._account is None else self._account.report()

    async def _train(self, folder: RunFolder, manifest: Mapping[str, Any], rounds: Rounds) -> str:
        """All rounds that are left: FINISHED, or SPENT where the budget ended them after some."""
        assert self._state is not None
        if self._options.class_weights and not self._state.counts.any():
            done = await self._round(rounds, Work("counts", 0, self._options, self._settings.data))
            counts = np.rint(done.mean.value * len(done.names))
            self._state = State(0, self._state.params, self._state.moments, counts)
            checkpoint.save(folder.checkpoints, _packed(self._state, manifest))
            self._log.info(f"class counts over {len(done.names)} sites are known")
        while self._state.rounds < self._options.rounds:
            state = self._state
            payload = pack_model(state.params, self._class_weights(state.counts))
            work = Work("train", state.rounds, self._options, self._settings.data, payload)
            try:
                done = await self._round(rounds, work)
            except BudgetSpent as error:
                self._log.warn(
                    f"BUDGET_SPENT: stopped after round {state.rounds} of {self._options.rounds}: {error}"
                )
                if state.rounds == 0:
                    raise
                return SPENT
            # Float32 is what the sites trained from, so the step begins there, as in process.
            params, moments = self._strategy.step(state.params, done.mean.value, state.moments, state.rounds)
            self._state = State(state.rounds + 1, params, moments, state.counts)
            checkpoint.save(folder.checkpoints, _packed(self._state, manifest))
            folder.add_metrics(self._line(state.rounds, done))
            self._log.info(
                f"round {state.rounds + 1}/{self._options.rounds}: {len(done.names)} of {len(self.roster)} "
                f"sites in the sum, {done.seconds:.1f} s"
            )
        return FINISHED

    async def _round(self, rounds: Rounds, work: Work) -> Done:
        """A round with a sum. A round without one is asked for again, under a new number, a few times."""
        dim = len(self._settings.data.classes) if work.kind == "counts" else self._layout.size
        while True:
            number = self._counter.next()
            try:
                done = await rounds.run(lambda a, r=number: self._make_task(r, a, dim, work), work)  # type: ignore[misc]
                self._aborted = 0
                return done
            except Aborted:
                self._aborted += 1
                if self._aborted >= self._settings.max_aborted:
                    raise

    def _class_weights(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """As the in-process driver: n / (k * n_c) over the classes that are present, 1 where it is off."""
        if not self._options.class_weights:
            return np.ones_like(counts)
        present = max(int((counts > 0).sum()), 1)
        return np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1)), 0.0)

    def _line(self, round_: int, done: Done) -> dict[str, Any]:
        return {
            "round": round_,
            "clients": len(self.roster),
            "survivors": len(done.names),
            "names": list(done.names),
            "excluded": done.excluded,
            "attempt": done.attempt,
            "uplink_bytes": sum(done.notes.uplink.values()),
            "downlink_bytes": sum(done.notes.downlink.values()),
            "norm": float(np.linalg.norm(done.mean.value)),
            "seconds": round(done.seconds, 4),
        }

    # The run folder

    def _start(self, folder: RunFolder, manifest: Mapping[str, Any]) -> State:
        found, passed = checkpoint.newest(folder.checkpoints, _identity(manifest))
        for reason in passed:
            self._log.warn(f"passed over a damaged checkpoint: {reason}")
        folder.keep_metrics(0 if found is None else found.rounds)
        if found is not None:
            self._log.info(f"going on after round {found.rounds}")
            t = found.tensors
            return State(found.rounds, t["params"], ServerState(t["first"], t["second"]), t["counts"])
        params = self._net.init(coins.derive(self._options.seed, "init", "")).astype(np.float64)
        counts = np.zeros(len(self._settings.data.classes))
        return State(0, params, self._strategy.start(self._layout.size), counts)

    def _manifest(self) -> dict[str, Any]:
        data, roster = self._settings.data, self.roster
        return {
            "versions": versions(),
            "data": {"source": "sites", "classes": list(data.classes), "shape": list(data.shape)},
            "config_sha256": self._options.sha256,
            "layout_sha256": self._layout.sha256,
            "federation": roster.federation.hex(),
            "roster_serial": roster.serial,
            "seeds": {"training": self._options.seed},
            "model": self._options.model,
            "scheme": self._options.scheme,
            "guarantee": self._guarantee(),
            "privacy": self._privacy(),
            "clients": len(roster),
            "rounds": self._options.rounds,
        }

    def _guarantee(self) -> str:
        sums = guarantee(self._options.scheme, len(self.roster))
        return sums if self._account is None else f"{self._account.sentence()}; {sums}"

    def _check_same(self, folder: RunFolder, before: Mapping[str, Any]) -> None:
        manifest = self._manifest()
        for name, what in (("config_sha256", "[train]"), ("data", "[data]"), ("federation", "federation")):
            if before.get(name) != manifest[name]:
                raise InputError(f"{folder.path} was begun with another {what}: name another run, or --force")

    def _finish(self, folder: RunFolder, ended: str, seconds: float) -> dict[str, Any]:
        assert self._state is not None
        manifest = self._manifest()
        data, options = self._settings.data, self._options
        digest = save_model(
            folder.path,
            name=options.model,
            options=options.model_options,
            layout=self._layout,
            params=self._state.params,
            shape=data.shape,
            meta=Meta(channels=data.channels, classes=data.classes),
            trained={
                "rounds": self._state.rounds,
                "scheme": options.scheme,
                "seed": options.seed,
                "config_sha256": options.sha256,
                "data_sha256": "",
            },
        )
        done = {"status": ended, "rounds_done": self._state.rounds, "model_sha256": digest}
        folder.write_manifest({**manifest, **done})
        return {
            "run": str(folder.path),
            "status": ended,
            "model": options.model,
            "scheme": options.scheme,
            "clients": len(self.roster),
            "rounds": self._state.rounds,
            "guarantee": manifest["guarantee"],
            "privacy": manifest["privacy"],
            "model_sha256": digest,
            "seconds": round(seconds, 3),
        }


def guarantee(scheme: str, clients: int) -> str:
    """What this server learns, in one sentence, from the scheme's own parameters."""
    if scheme not in SECURE_SCHEMES:
        return "none: the server reads every site's update and clip count"
    params = get(scheme).params(clients, 1)
    return (
        f"the server gets sums over at least {params.honest} honest sites; threshold {params.threshold}, "
        f"{params.corrupt} colluding sites tolerated of {clients}; sums of different rounds are not "
        "hidden from each other"
    )


def read_status(run: Path) -> dict[str, Any]:
    """status.json of a run folder. InputError where there is none."""
    if not (run / STATUS).is_file():
        raise InputError(f"{run} has no {STATUS}: no server has run there")
    return read_json(run / STATUS)


def _identity(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {
        "options": manifest["config_sha256"],
        "data": manifest["federation"],
        "layout": manifest["layout_sha256"],
    }


def _packed(state: State, manifest: Mapping[str, Any]) -> Checkpoint:
    tensors = {
        "params": state.params,
        "first": state.moments.first,
        "second": state.moments.second,
        "counts": state.counts,
    }
    return Checkpoint(state.rounds, tensors, _identity(manifest))
