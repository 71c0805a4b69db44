"""Differential privacy done wrong: the controls of A29 and A30. In no registry, reachable from no option."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.games import Bits, Floats, Game, Steps, games, share_game, step_game
from merveil.protocols.dp.clips import ClipStep
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.rng import Rng, SeededRng

Codes = NDArray[np.int64]


class HalfNoise(Steps):
    """Noise of half the standard deviation that the accountant was told."""

    label = "DP-SGD, half the noise"

    def release(self, step: ClipStep, sums: Codes, drawn: Bits) -> Floats:
        clean = sums * (step.step / step.batch)
        return clean + (step.release(sums) - clean) / 2


class NoClip(Steps):
    """Gradients are not clipped."""

    label = "DP-SGD, clip forgotten"

    def codes(self, step: ClipStep, gradients: Floats) -> Codes:
        return np.rint(gradients / step.step).astype(np.int64)


class OneLayerUnclipped(Steps):
    """The norm that clips is that of the first layer alone."""

    label = "DP-SGD, one layer not clipped"

    def codes(self, step: ClipStep, gradients: Floats) -> Codes:
        norms = np.linalg.norm(gradients[:, :4], axis=1)
        scale = np.minimum(1, step.norm_clip / np.maximum(norms, step.norm_clip))
        return np.rint(gradients * scale[:, None] / step.step).astype(np.int64)


class NoiseReused(Steps):
    """The noise of a run's first step serves all of its steps, as a generator seeded anew gives it."""

    label = "DP-SGD, noise reused"

    def run(self, step: ClipStep, gradients: Floats, runs: int, times: int) -> Floats:
        noise = step.release(np.zeros((runs, step.dim), dtype=np.int64))
        codes = step.codes(gradients)
        clean = [step.sample((runs, len(codes))).astype(np.int64) @ codes for _ in range(times)]
        return np.stack([c * (step.step / step.batch) + noise for c in clean], axis=1)


class RealisedBatch(Steps):
    """Sum and noise are divided by the number of clips that were drawn."""

    label = "DP-SGD, mean over the realised batch"

    def release(self, step: ClipStep, sums: Codes, drawn: Bits) -> Floats:
        return step.release(sums) * step.batch / np.maximum(drawn.sum(1), 1)[:, None]


class LoaderNormaliser(Steps):
    """Rate and divisor from the number of clips, as Opacus takes them from its loader (batches of four)."""

    label = "DP-SGD, normaliser of the loader"

    def run(self, step: ClipStep, gradients: Floats, runs: int, times: int) -> Floats:
        clips = len(gradients)
        rate = 1 / -(-clips // 4)
        chosen = dataclasses.replace(step, rate=rate, batch=float(max(1, int(clips * rate))))
        return super().run(chosen, gradients, runs, times)


STEPS: tuple[type[Steps], ...] = (
    HalfNoise,
    NoClip,
    OneLayerUnclipped,
    NoiseReused,
    RealisedBatch,
    LoaderNormaliser,
)
# Sizes at which a clip more or less changes a normaliser of that kind.
_SIZES = {LoaderNormaliser: (0, 1, 2, 3), RealisedBatch: (0, 0, 0, 0)}


def uncompensated(mechanism: Mechanism) -> Mechanism:
    """Shares that add up to the target only if everybody survives and nobody colludes."""
    return dataclasses.replace(mechanism, variance=mechanism.variance * mechanism.honest / mechanism.cohort)


class _Seeded(Mechanism):
    """Every share from a generator that anyone can seed."""

    def encode(self, update: Floats, public: bytes, rng: Rng | None = None) -> Codes:
        return super().encode(update, public, SeededRng(3))


class _Once(Mechanism):
    """One share for all rounds."""

    def encode(self, update: Floats, public: bytes, rng: Rng | None = None) -> Codes:
        kept = _KEPT.setdefault((self.variance, self.size), self.table().draw(self.size, SeededRng(12345)))
        return self.quantise(update, public, SeededRng(0)) + kept


_KEPT: dict[Any, Codes] = {}


def _as(kind: type[Mechanism], mechanism: Mechanism) -> Mechanism:
    return kind(**dataclasses.asdict(mechanism))


SHARES: dict[str, Callable[[Mechanism], Mechanism]] = {
    "shares for a full cohort": uncompensated,
    "seeded noise": partial(_as, _Seeded),
    "noise reused": partial(_as, _Once),
}


def control_game(attack: str) -> tuple[str, Game]:
    """Label and games of an attack's control: the mutants in turn."""
    if attack == "A29":
        return "DP-SGD with six planted bugs", _broken_steps
    if attack == "A30":
        return "secagg, shares with three planted bugs", _broken_shares
    return "plain, noise at the server", games(attack, "plain")


def _broken_steps(number: int) -> tuple[Any, Any]:
    kind, at = STEPS[number % len(STEPS)], number // len(STEPS)
    return step_game(kind(), _SIZES[kind][at % 4] if kind in _SIZES else at)


def _broken_shares(number: int) -> tuple[Any, Any]:
    return share_game("secagg", list(SHARES.values())[number % len(SHARES)])
