"""Example-level DP-SGD at the clients: local training whose every step is a private release.

Guarantee: what a client's training gives out is a function of noisy sums (`protocols.dp.clips`) and of public
values alone; its clips enter nowhere else. A clip's gradient is that of the clip by itself: networks without
batch statistics only, no dropout (whose coins would depend on a clip's place among the others), no class
weights, and one clip a model of the stack, so that autograd gives single gradients by construction.
Unit: one clip. Budget: per client (`fl.dp_sgd_ledger`). Noise and sampling coins come from the system.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.dp import STRETCH
from merveil.fl.dp_ledger import BudgetSpent
from merveil.fl.dp_sgd_ledger import CLIP_RELATION, ClipBudget
from merveil.fl.options import TrainOptions
from merveil.fl.privacy_sgd import NAMES, Cost, cost, epsilon, solve
from merveil.mer.errors import InputError
from merveil.protocols.dp.clips import ClipStep
from merveil.protocols.errors import LocalError

if TYPE_CHECKING:
    import torch

    from merveil.mer.models.stacked import Floats, StackedNet

# Clips a pass. The last bit of a clip's gradient must not depend on which others are there: networks that are
# tested for that go 64 at a time, always as many; all others, one by one.
TOGETHER = {"ststnet": 64}
Charges = tuple[tuple[Cost, int], ...]
PARTICIPATION = "a clip is in each step by a coin of its own at the public rate (Poisson)"


def figures(options: TrainOptions) -> tuple[float, float, float]:
    """(epsilon, delta, norm clip) of the clip-level guarantee."""
    if not options.noisy_sums:
        return options.epsilon, options.delta, options.norm_clip
    return options.sgd_epsilon or options.epsilon, options.sgd_delta or options.delta, options.sgd_clip


def step_for(options: TrainOptions, dim: int, clips: int, budget: ClipBudget) -> ClipStep:
    """The step whose noise lets all rounds stay within what the most charged client has left.

    clips: of the whole federation. InputError: delta is no smaller than one over them. BudgetSpent: nothing
    is left, or so little that the noise would be more than STRETCH times that of a whole budget. LocalError:
    no noise fits. ImportError names the extra of the accountant.
    """
    target, delta, norm_clip = figures(options)
    if delta * clips >= 1:
        raise InputError(
            f"a delta of {delta:g} with {clips} clips: a mechanism that publishes one clip whole would pass; "
            f"use less than {1 / clips:.2g}"
        )
    steps = options.rounds * options.local_epochs

    def solved(spent: Charges) -> ClipStep:
        return solve(
            dim,
            norm_clip,
            options.sgd_rate,
            float(options.batch),
            target=target,
            delta=delta,
            steps=steps,
            accountant=options.sgd_accountant,
            spent=spent,
        )

    whole, spent = solved(()), budget.worst()
    if not spent:
        return whole
    try:
        found = solved(spent)
    except LocalError as error:  # the whole budget's noise fits, so what is left is too little
        raise BudgetSpent(str(error)) from error
    factor = found.multiplier / whole.multiplier
    if factor > STRETCH:
        needed = epsilon([*spent, (cost(whole), steps)], delta, options.sgd_accountant)
        raise BudgetSpent(
            f"the clips' budget is nearly spent: a client paid epsilon {budget.epsilon():.4g} of {target:g} "
            f"at delta {delta:g}, and the rest would take {factor:.3g} times the noise of a first training, "
            f"where more than {STRETCH:g} times is refused. {steps} steps with the noise of a first training "
            f"would bring it to {needed:.4g}: use that as the epsilon, if those whom it protects agree"
        )
    return found


def train_private(
    net: "StackedNet",
    params: "Floats",
    x: "torch.Tensor",
    y: NDArray[np.int64],
    rows: NDArray[np.int64],
    step: ClipStep,
    options: TrainOptions,
) -> "Floats":
    """`local_epochs` steps of DP-SGD for each of M clients; new params float32 [M, size].

    params [M, size]; x prepared clips, y labels; rows int64 [M, B], the clips of each client, -1 = padding.
    Raises LocalError INPUT_NOT_FINITE where a gradient is not finite.
    """
    import torch

    from merveil.mer.optim import OptimiserState

    values = torch.from_numpy(np.array(params, np.float32))
    start = values.clone()
    state = OptimiserState.fresh(options.optimiser, len(params), net.size)
    rate = np.full(len(params), options.lr)
    for _ in range(options.local_epochs):
        sums = private_sums(net, values, x, y, rows, step, options.label_smoothing)
        mean = torch.from_numpy(step.release(sums).astype(np.float32))
        if options.prox_mu:
            mean = mean.add(values - start, alpha=options.prox_mu)
        state.step(values, mean, rate, options.weight_decay)
    return values.numpy()


def private_sums(
    net: "StackedNet",
    values: "torch.Tensor",
    x: "torch.Tensor",
    y: NDArray[np.int64],
    rows: NDArray[np.int64],
    step: ClipStep,
    smoothing: float,
) -> NDArray[np.int64]:
    """Each client's sum of the codes of the clips that its coins drew, before noise: int64 [M, size]."""
    drawn = step.sample(rows.shape) & (rows >= 0)
    owner, place = np.nonzero(drawn)  # owners ascend
    clips = rows[owner, place]
    sums, together = np.zeros((len(rows), step.dim), dtype=np.int64), TOGETHER.get(net.name, 1)
    for at in range(0, len(owner), together):
        part = owner[at : at + together]
        codes = step.codes(clip_gradients(net, values[part], x, y, clips[at : at + together], smoothing))
        first = np.flatnonzero(np.diff(part, prepend=-1))
        sums[part[first]] += np.add.reduceat(codes, first, axis=0)
    return sums


def clip_gradients(
    net: "StackedNet",
    values: "torch.Tensor",
    x: "torch.Tensor",
    y: NDArray[np.int64],
    clips: NDArray[np.int64],
    smoothing: float,
) -> "Floats":
    """Gradient of each clip's own cross-entropy at its own parameters: float32 [S, size].

    values [S, size], one row a clip; clips int64 [S], rows of x and y, as many as TOGETHER says or fewer.
    Nothing is dropped. The pass is filled up with the first clip: how many others there are changes no bit.
    """
    import torch

    from merveil.mer.train import set_threads

    set_threads(1)
    size = TOGETHER.get(net.name, 1)
    fill = np.concatenate([np.arange(len(clips)), np.zeros(size - len(clips), np.int64)])
    filled = clips[fill]
    targets = np.full((size, 1, net.classes), smoothing / net.classes, np.float32)
    targets[np.arange(size), 0, y[filled]] += 1 - smoothing
    found = net.gradients(values[fill], x, filled[:, None], torch.from_numpy(targets), None)
    return np.asarray(found.value.numpy()[: len(clips)])


def to_json(step: ClipStep) -> dict[str, Any]:
    """A step as plain values; `from_json` reads it back."""
    return asdict(step)


def from_json(value: Mapping[str, Any]) -> ClipStep:
    """LocalError or TypeError where the values describe no step."""
    return ClipStep(**value)


def report(options: TrainOptions, step: ClipStep, budget: ClipBudget) -> dict[str, Any]:
    """The clip-level guarantee of a run as it goes into its JSON."""
    target, delta, _ = figures(options)
    return {
        "dp": "sgd",
        "unit": "clip",
        "relation": CLIP_RELATION,
        "participation": PARTICIPATION,
        "epsilon": budget.epsilon(),
        "target_epsilon": target,
        "delta": delta,
        "steps": max((budget.steps(client) for client in budget.clients), default=0),
        "noise": "Gaussian, rounded to the grid",
        "noise_multiplier": step.multiplier,
        "norm_clip": step.norm_clip,
        "rate": step.rate,
        "batch": step.batch,
        "dim": step.dim,
        "omega": float(cost(step)[2]),
        "accountant": NAMES[options.sgd_accountant],
        "against": AGAINST,
        "step": to_json(step),
    }


AGAINST = "everyone who sees a client's uploads, the server included, and the other clients"


def sentence(options: TrainOptions, spent: float) -> str:
    """One line for the report: unit, figures, relation, adversary."""
    _, delta, _ = figures(options)
    most = math.ceil(spent * 1000) / 1000
    return (
        f"clip-level ({most:g}, {delta:g})-differential privacy (DP-SGD at each client; {CLIP_RELATION}; "
        f"{PARTICIPATION}) against {AGAINST}"
    )
