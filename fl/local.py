"""Local training of many clients at once, as stacks.

A job is one client in one federated run. Jobs of like size share a stack, which saves the padding; a job's
coins come from (seed, run, client, round), so its update does not depend on its neighbours in the stack
beyond float rounding, and the grouping is a function of the jobs alone, so a repeat is bit-identical.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.fl import coins
from merveil.fl.clients import Client
from merveil.fl.options import TrainOptions
from merveil.mer.errors import InputError
from merveil.mer.models.stacked import Floats, StackedNet
from merveil.mer.train import train_stack
from merveil.protocols.dp.clips import ClipStep

STACK_CLIPS = 1400  # most clips, padding included, in one stack: bounds memory
MOST_NUMBERS = 1_000_000_000  # jobs times parameters: eight gigabytes of updates
PADDING = 1.25  # a stack's largest client holds at most this times the clips of its smallest


@dataclass(frozen=True, eq=False)
class Job:
    """One client's work in one round: `run` is the position of its federated run."""

    run: int
    label: str  # of the run, in the coins
    client: Client


def stacks(jobs: Sequence[Job]) -> list[list[int]]:
    """Positions in `jobs`, grouped by like clip counts; every job is in exactly one group."""
    # One client in many runs has the same clips: side by side, a network can share their matrix products.
    order = sorted(range(len(jobs)), key=lambda i: (jobs[i].client.clips, jobs[i].client.name, i))
    groups: list[list[int]] = []
    for i in order:
        clips = jobs[i].client.clips
        group = groups[-1] if groups else []
        small = jobs[group[0]].client.clips if group else 0
        if group and clips <= small * PADDING and (len(group) + 1) * clips <= STACK_CLIPS:
            group.append(i)
        else:
            groups.append([i])
    return groups


class LocalTrainer:
    """Trains jobs from their runs' global models; holds the prepared clips, shared by all stacks.

    x: prepared clips of the whole archive; y: int64 labels. Only the rows of a job's client are ever read
    for that job. versions: images near the apex of each clip, after the clips in x, where the options ask
    for apex_jitter. step: of DP-SGD, where they ask for it.
    """

    def __init__(
        self,
        net: StackedNet,
        x: Floats,
        y: NDArray[np.int64],
        jobs: Sequence[Job],
        options: TrainOptions,
        step: ClipStep | None = None,
        versions: int = 0,
    ) -> None:
        import torch

        if len(jobs) * net.size > MOST_NUMBERS:
            raise InputError(
                f"{len(jobs)} clients over all folds times {net.size} parameters do not fit in memory: take "
                "a smaller form of the network (head=gap), fewer clients (site:K) or fewer folds (kfold:K)"
            )
        self.net, self.x, self.y, self.options = net, torch.from_numpy(x), y, options
        self.step, self.versions = step, versions
        self.jobs = list(jobs)
        self.groups = [(group, _rows(jobs, group)) for group in stacks(jobs)]

    def updates(
        self,
        params: Floats,
        class_weight: NDArray[np.float64],
        round_: int,
        drift: Floats | None = None,
    ) -> list[NDArray[np.float64]]:
        """The update of every job, float64 [P]: (local - global) times the job's importance.

        drift: added to each job's gradients, float32 [jobs, P], or None.
        params: float32 [runs, P], the global models. class_weight: [runs, K]. The importance is the mean
        class weight of the client's clips: local losses are weighted means, so without it a client of one
        rare class would weigh no more than its clip count says, and the weighted mean of the clients'
        gradients would not be the gradient of the pooled loss.
        """
        found: list[NDArray[np.float64]] = [np.empty(0)] * len(self.jobs)
        for group, rows in self.groups:
            runs = np.array([self.jobs[i].run for i in group])
            start = params[runs]
            pull = None if drift is None else drift[group]
            trained = self._train(start, rows, class_weight[runs], group, round_, pull)
            for at, i in enumerate(group):
                change = trained[at].astype(np.float64) - start[at]
                found[i] = change * self.importance(i, class_weight[runs[at]])
        return found

    def importance(self, job: int, class_weight: NDArray[np.float64]) -> float:
        """Mean class weight of a job's clips; 1 on average over all clips of a run."""
        return float(class_weight[self.y[self.jobs[job].client.index]].mean())

    def _train(
        self,
        start: Floats,
        rows: NDArray[np.int64],
        class_weight: NDArray[np.float64],
        group: Sequence[int],
        round_: int,
        drift: Floats | None,
    ) -> Floats:
        options = self.options
        if self.step is not None:
            from merveil.fl.dp_sgd import train_private

            return train_private(self.net, start, self.x, self.y, rows, self.step, options)
        batch = options.batch or None
        per_epoch = [1 if batch is None else -(-self.jobs[i].client.clips // batch) for i in group]
        seeds = [
            coins.derive(options.seed, "local", self.jobs[i].label, self.jobs[i].client.name, round_)
            for i in group
        ]
        return train_stack(
            self.net,
            start,
            self.x,
            self.y,
            rows=rows,
            steps=[options.local_epochs * count for count in per_epoch],
            lr=options.lr,
            seeds=seeds,
            optimiser=options.optimiser,
            batch=batch,
            class_weight=class_weight,
            label_smoothing=options.label_smoothing,
            weight_decay=options.weight_decay,
            prox_mu=options.prox_mu,
            anchor=start if options.prox_mu else None,
            drift=drift,
            versions=self.versions,
            apex_jitter=options.apex_jitter,
        )


def _rows(jobs: Sequence[Job], group: Sequence[int]) -> NDArray[np.int64]:
    """Archive rows of a group's clients, int64 [M, B], -1 where a client has fewer clips."""
    widest = max(jobs[i].client.clips for i in group)
    rows = np.full((len(group), widest), -1, dtype=np.int64)
    for at, i in enumerate(group):
        rows[at, : jobs[i].client.clips] = jobs[i].client.index
    return rows
