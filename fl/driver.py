"""The in-process engine: rounds of local training, aggregation through a scheme, and a server step.

Guarantee: what a server gets from its clients crosses as frames of the scheme's sessions: the sum of the
updates with their hidden clip counts, and once the sum of the class counts. Losses, labels and single
counts do not cross, so the reports here have none. All coins come from the training seed, so one seed gives
bit-identical models under all exact schemes, and a resumed run continues bit for bit.

Several federated runs (the folds of an evaluation) go side by side: their clients share stacks, and each
run has its own aggregator, roster and ledgers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merveil.fl import coins
from merveil.fl.aggregator import Aggregate, SecureAggregator
from merveil.fl.clients import Client, class_counts
from merveil.fl.dp import PrivateAggregator, mechanism_for
from merveil.fl.dp_ledger import Budget, BudgetSpent
from merveil.fl.dp_sgd import figures, step_for
from merveil.fl.dp_sgd_ledger import ClipBudget
from merveil.fl.local import Job, LocalTrainer
from merveil.fl.options import TrainOptions
from merveil.fl.privacy_sgd import cost
from merveil.fl.strategy import ServerState
from merveil.fl.update import Layout
from merveil.mer.errors import InputError
from merveil.mer.models.registry import get
from merveil.mer.models.stacked import StackedNet, build
from merveil.mer.train import prepared
from merveil.protocols.dp.clips import ClipStep
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.policy import SECURE_SCHEMES, Policy
from merveil.protocols.registry import get as get_scheme

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

# The class counts travel on a grid of 1/256 up to 32,768, so an exact scheme gives exact sums, and the
# bound says nothing about the data.
COUNT_BITS = 24
COUNT_CLIP = ((1 << (COUNT_BITS - 1)) - 1) / 256


@dataclass(frozen=True, eq=False)
class Run:
    """One federation: a label for its coins, and its clients in a fixed order."""

    label: str
    clients: tuple[Client, ...]


@dataclass(frozen=True, eq=False)
class State:
    """Everything the servers hold after `rounds` rounds; the k-th entry is the k-th run's.

    params: float64 [runs, P]. moments: the strategy's. counts: clips of each class over all clients of a
    run, float64 [runs, K], from the secure sum; zeros where no option needs them. controls: what scaffold's
    clients keep, [jobs, P]: each client's own, here in one hand with the rest; empty otherwise.
    """

    rounds: int
    params: NDArray[np.float64]
    moments: tuple[ServerState, ...]
    counts: NDArray[np.float64]
    controls: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))


@dataclass(frozen=True)
class Report:
    """One round of one run, as the server knows it; `cut` is known to the clients and to this driver only.

    survivors: clients in the mean. uplink_bytes: of all clients together. cut: share of the survivors'
    coordinates that met the update clip. norm: of the mean update.
    """

    round: int
    clients: int
    survivors: int
    uplink_bytes: int
    cut: float
    norm: float


class Federation:
    """Runs that share an archive and options. InputError: no clients, or too few for the scheme.

    budget, mechanism: of a run with noisy sums; clip_budget, step: of one with DP-SGD. By default a fresh
    budget for each run, in memory (for a measurement), and the noise that its rounds need.
    """

    def __init__(
        self,
        archive: "Archive",
        runs: Sequence[Run],
        options: TrainOptions,
        *,
        record: bool = False,
        budget: Budget | None = None,
        mechanism: Mechanism | None = None,
        clip_budget: ClipBudget | None = None,
        step: ClipStep | None = None,
    ) -> None:
        for run in runs:
            check_cohort(options.scheme, options.clients, len(run.clients), run.label)
        height, width, channels = archive.x.shape[1:]
        self.archive, self.runs, self.options = archive, tuple(runs), options
        self.net = federated_net(options, (height, width, channels), len(archive.classes))
        self.layout = Layout.of(self.net.layout)
        self.prepared, versions = prepared(self.net, archive, options.apex_jitter)
        self.jobs = [Job(k, run.label, client) for k, run in enumerate(runs) for client in run.clients]
        self.clip_budgets = [clip_budget or self._clip_budget(run) for run in runs] if options.sgd else []
        self.step = (step or self._clip_step()) if options.sgd else None
        self._trainer = LocalTrainer(
            self.net, self.prepared, archive.y, self.jobs, options, self.step, versions
        )
        self._strategy = options.server()
        if options.noisy_sums:
            self.private = [self._private(run, record, budget, mechanism) for run in runs]
        else:
            self.private = []
            self._aggregators = [self._aggregator(record) for _ in runs]
        self.last: list[Aggregate] = []

    def start(self) -> State:
        """Initial models and the secure class counts: the state before round 0."""
        seeds = [coins.derive(self.options.seed, "init", run.label) for run in self.runs]
        params = np.stack([self.net.init(seed).astype(np.float64) for seed in seeds])
        moments = tuple(self._strategy.start(self.layout.size) for _ in self.runs)
        counts = np.zeros((len(self.runs), len(self.archive.classes)))
        if self.options.class_weights or self.options.logit_tau:
            counts = np.stack([self._secure_counts(run) for run in self.runs])
        params = self._with_prior(params, counts, self.options.logit_tau)
        clients = len(self.jobs) if self.options.strategy == "scaffold" else 0
        return State(0, params, moments, counts, np.zeros((clients, self.layout.size), np.float32))

    def final(self, state: State) -> NDArray[np.float32]:
        """The models that predict, [runs, P]: averaged over rounds and freed of the prior where asked for."""
        found = [
            self._strategy.final(p, m, state.rounds) for p, m in zip(state.params, state.moments, strict=True)
        ]
        return self._with_prior(np.stack(found), state.counts, -self.options.logit_tau).astype(np.float32)

    def _with_prior(
        self, params: NDArray[np.float64], counts: NDArray[np.float64], tau: float
    ) -> NDArray[np.float64]:
        if not tau:
            return params
        from merveil.mer.train import with_prior

        return with_prior(self.net, params, counts / counts.sum(1, keepdims=True), tau)

    def advance(self, state: State) -> tuple[State, list[Report]]:
        """One round of every run. Raises Aborted where a scheme gives no sum, LocalError for a high cut."""
        round_ = state.rounds
        self._charge_steps(round_)
        shared = self._sent(state)
        weights, drift = self.class_weights(state), self._drift(state)
        updates = self._trainer.updates(shared, weights, round_, drift)
        self.last = [
            self._aggregate(k, [u for u, job in zip(updates, self.jobs) if job.run == k], shared[k], round_)
            for k in range(len(self.runs))
        ]
        params, moments = np.empty_like(state.params), []
        for k, mean in enumerate(self.last):
            share = len(mean.survivors) / len(self.runs[k].clients)
            params[k], moment = self._strategy.step(
                state.params[k], mean.value, state.moments[k], round_, share
            )
            moments.append(moment)
        controls = self._controls(state, updates, weights, drift)
        reports = [self._report(k, round_) for k in range(len(self.runs))]
        return State(round_ + 1, params, tuple(moments), state.counts, controls), reports

    def _sent(self, state: State) -> NDArray[np.float32]:
        """The models as clients get them, [runs, P]. LocalError INPUT_NOT_FINITE: a training diverged."""
        shared = state.params.astype(np.float32)
        for k in np.flatnonzero(~np.isfinite(shared).all(axis=1)):
            where = f"round {state.rounds + 1}{f' of {self.runs[k].label}' if self.runs[k].label else ''}"
            raise LocalError(
                f"{where}: the model holds values that are no numbers, so no client trains on it; "
                "lower server_lr",
                AbortCode.INPUT_NOT_FINITE,
            )
        return shared

    def _drift(self, state: State) -> NDArray[np.float32] | None:
        """Scaffold's c - c_i of every job, [jobs, P]."""
        if self.options.strategy != "scaffold":
            return None
        server = np.stack([state.moments[job.run].first for job in self.jobs])
        return np.asarray(server - state.controls, np.float32)

    def _controls(
        self,
        state: State,
        updates: list[NDArray[np.float64]],
        weights: NDArray[np.float64],
        drift: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """c_i - c + (global - local)/(K lr) for clients in the mean; the others keep theirs."""
        if drift is None:
            return state.controls
        reach, found, at = self.options.server().reach, state.controls.copy(), [0] * len(self.runs)
        for i, job in enumerate(self.jobs):
            if at[job.run] in self.last[job.run].survivors:
                change = updates[i] / self._trainer.importance(i, weights[job.run])
                found[i] = -drift[i] - change / reach
            at[job.run] += 1
        return found

    def class_weights(self, state: State) -> NDArray[np.float64]:
        """n / (k * n_c) over the k classes that a run's clients have, 0 for an absent one: [runs, K]."""
        if not self.options.class_weights:
            return np.ones_like(state.counts)
        present = np.maximum((state.counts > 0).sum(1, keepdims=True), 1)
        total = state.counts.sum(1, keepdims=True)
        return np.where(state.counts > 0, total / (present * np.maximum(state.counts, 1)), 0.0)

    def weight(self, client: Client) -> int:
        """The integer with which a client weighs: its clips, capped by the public bound."""
        cap = self.options.max_weight
        return min(client.clips, cap) if cap else client.clips

    def _private(
        self, run: Run, record: bool, budget: Budget | None, mechanism: Mechanism | None
    ) -> PrivateAggregator:
        options = self.options
        if budget is None:
            budget = Budget(None, run.label, options.epsilon, options.delta)
        found = mechanism or mechanism_for(options, self.layout.size, len(run.clients), budget)
        return PrivateAggregator(options.scheme, found, budget, record=record)

    def _clip_budget(self, run: Run) -> ClipBudget:
        target, delta, _ = figures(self.options)
        return ClipBudget(None, run.label, target, delta, self.options.sgd_accountant)

    def _clip_step(self) -> ClipStep:
        """One step for all runs: their budgets are equally unspent, or there is one run."""
        clips = max(sum(client.clips for client in run.clients) for run in self.runs)
        return step_for(self.options, self.layout.size, clips, self.clip_budgets[0])

    def _charge_steps(self, round_: int) -> None:
        """Pay for the coming round's steps of every client that takes part, before any is taken."""
        if self.step is None:
            return
        for run, budget in zip(self.runs, self.clip_budgets):
            silent = self._dropped(run, round_)
            names = [client.name for i, client in enumerate(run.clients) if i not in silent]
            budget.charge(cost(self.step), names, self.options.local_epochs)

    def _aggregator(self, record: bool) -> SecureAggregator:
        options = self.options
        return SecureAggregator(
            options.scheme,
            clip=options.update_clip,
            bits=options.bits,
            max_weight=options.max_weight or None,
            max_cut=options.max_cut,
            record=record,
        )

    def _aggregate(
        self, k: int, updates: list[NDArray[np.float64]], shared: NDArray[np.float32], round_: int
    ) -> Aggregate:
        run, seed = self.runs[k], self.options.seed
        model = hashlib.sha256(self.layout.sha256.encode() + shared.tobytes()).digest()
        size = self.layout.size
        try:
            if self.options.noisy_sums:
                return self.private[k].mean(updates, drop=self._dropped(run, round_), model_hash=model)
            return self._aggregators[k].mean(
                updates,
                weights=None if self.options.sgd else [self.weight(client) for client in run.clients],
                drop=self._dropped(run, round_),
                coins=[coins.rounding(seed, size, run.label, round_, c.name) for c in run.clients],
                model_hash=model,
            )
        except BudgetSpent:
            raise
        except LocalError as error:
            where = f"round {round_ + 1}{f' of {run.label}' if run.label else ''}"
            told = LocalError(f"{where}: {error}")
            told.code = error.code
            raise told from error

    def _dropped(self, run: Run, round_: int) -> dict[int, str]:
        """Simulated failures: who is silent in this round from the first phase on."""
        if not self.options.drop_rate:
            return {}
        first = get_scheme(self.options.scheme).phases[0].value
        drawn = coins.stream(self.options.seed, "drop", run.label, round_).random(len(run.clients))
        return dict.fromkeys(np.flatnonzero(drawn < self.options.drop_rate).tolist(), first)

    def _secure_counts(self, run: Run) -> NDArray[np.float64]:
        """Clips of each class over all clients, by one sum through the scheme."""
        largest = max(client.clips for client in run.clients)
        if largest > COUNT_CLIP:
            raise InputError(
                f"a client with {largest} clips exceeds the {int(COUNT_CLIP)} that can be counted"
            )
        counter = SecureAggregator(self.options.scheme, clip=COUNT_CLIP, bits=COUNT_BITS)
        found = counter.mean([class_counts(self.archive, client) for client in run.clients])
        return np.asarray(np.rint(found.value * len(found.survivors)))

    def _report(self, k: int, round_: int) -> Report:
        mean = self.last[k]
        return Report(
            round=round_,
            clients=len(self.runs[k].clients),
            survivors=len(mean.survivors),
            uplink_bytes=sum(mean.uplink_bytes),
            cut=mean.cut,
            norm=float(np.linalg.norm(mean.value)),
        )


def federated_net(options: TrainOptions, shape: tuple[int, int, int], classes: int) -> StackedNet:
    """The network to federate. InputError: not a network, or one that keeps batch statistics."""
    if get(options.model).kind != "network":
        raise InputError(f"{options.model} is not trained by rounds; federated training needs a network")
    net = build(options.model, shape[2], shape[0], shape[1], classes, **options.model_options)
    if net.buffers:
        raise InputError(
            f"{options.model} with {dict(options.model_options)} keeps batch statistics, which a client of "
            "a few clips can neither share nor hide: use norm=group"
        )
    return net


def check_cohort(scheme: str, rule: str, clients: int, label: str = "") -> None:
    """InputError unless the scheme takes this many clients. LocalError: unknown scheme."""
    where = f"fold {label} leaves" if label else f"--clients {rule} gives"
    if clients == 0:
        raise InputError(f"{where} no client with a clip to train on")
    entry = get_scheme(scheme)
    try:
        params = entry.params(clients, 1)
        small = scheme in SECURE_SCHEMES and params.honest < Policy(anchor=bytes(32)).min_honest
    except LocalError as error:
        raise InputError(f"{where} {clients} clients, and {scheme} refuses that: {error}{_ADVICE}") from error
    if small:
        raise InputError(f"{where} {clients} clients: too few for {scheme} to hide one in the sum{_ADVICE}")


_ADVICE = "; take more clients (--clients subject or site:K), or --scheme plain, which hides nothing"


def guarantee(scheme: str, clients: int) -> str:
    """What the server learns, in one sentence, from the scheme's own parameters."""
    if scheme not in SECURE_SCHEMES:
        return "none: the server reads every client's update and clip count"
    params = get_scheme(scheme).params(clients, 1)
    graph = f"{params.neighbours} neighbours" if params.neighbours else "complete graph"
    return (
        f"the server gets sums over at least {params.honest} honest clients; threshold {params.threshold}, "
        f"{params.corrupt} colluding clients tolerated of {clients}, {graph}; in process all keys are in one "
        "hand, so this run shows cost and correctness and protects nobody"
    )
