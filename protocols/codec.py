"""Floats to grid integers and back: the one place where an update meets the modulus.

A coordinate is clipped to [-clip, clip], scaled to L = 2^(bits-1) - 1 steps and rounded to a neighbouring
step. With a weight w the client encodes x*w/max_weight and sends w as one more coordinate, so no count
crosses in clear; the mean is then sum(x*w)/sum(w), its error at most n*max_weight/sum(w) grid steps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.params import Params

Floats = NDArray[np.float64]  # shape (dim,), update units
Codes = NDArray[np.int64]  # shape (size,), signed grid codes; the weight coordinate is 1..max_weight


@dataclass(frozen=True, slots=True)
class Mean:
    """A decoded aggregate. value: shape (dim,), update units. weight: sum of weights (or of clients)."""

    value: Floats
    weight: int


class Codec:
    """Encoder and decoder for one Params."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def encode(self, update: Floats, weight: int = 1, coins: Floats | None = None) -> Codes:
        """Signed codes, shape (size,).

        update: shape (dim,), finite. weight: integer 1..max_weight. coins: uniform in [0, 1), shape (dim,):
        stochastic rounding, unbiased and within one step; None rounds to the nearest step (within half).
        Raises LocalError INPUT_NOT_FINITE naming the coordinate, SHAPE_MISMATCH, INPUT_RANGE.
        """
        p = self._params
        steps = self._steps(update, weight)
        if coins is None:
            np.rint(steps, out=steps)
        else:
            if coins.shape != steps.shape or not (coins.min() >= 0 and coins.max() < 1):
                raise LocalError(
                    "coins must be uniforms in [0, 1), one a coordinate", AbortCode.SHAPE_MISMATCH
                )
            # floor(steps + coin) is the upper step with probability equal to the fraction
            np.floor(np.add(steps, coins, out=steps), out=steps)
            np.clip(steps, -p.levels, p.levels, out=steps)
        codes = np.empty(p.size, dtype=np.int64)
        codes[: p.dim] = steps
        if p.weighted:
            codes[p.dim] = weight
        return codes

    def _steps(self, update: Floats, weight: int) -> Floats:
        p = self._params
        if not isinstance(update, np.ndarray) or update.dtype.kind != "f":
            found = update.dtype if isinstance(update, np.ndarray) else type(update).__name__
            raise LocalError(f"an update is an array of floats, not {found}", AbortCode.SHAPE_MISMATCH)
        if update.shape != (p.dim,):
            raise LocalError(f"update of shape {update.shape}, expected ({p.dim},)", AbortCode.SHAPE_MISMATCH)
        if not isinstance(weight, (int, np.integer)) or isinstance(weight, bool):
            raise LocalError(f"a weight is an integer, not {weight!r}", AbortCode.INPUT_RANGE)
        if not 1 <= weight <= p.max_weight:
            raise LocalError(f"weight {weight} lies outside 1..{p.max_weight}", AbortCode.INPUT_RANGE)
        finite = np.isfinite(update)
        if not finite.all():
            where = int(np.argmin(finite))
            raise LocalError(f"coordinate {where} is {update[where]}", AbortCode.INPUT_NOT_FINITE)
        steps = np.clip(np.asarray(update, dtype=np.float64), -p.clip, p.clip)
        return np.asarray(steps * (p.levels * (int(weight) / p.max_weight) / p.clip), dtype=np.float64)

    def cut(self, update: Floats) -> int:
        """How many coordinates lie outside [-clip, clip]."""
        return int(np.count_nonzero(np.abs(update) > self._params.clip))

    def decode(self, total: Codes, survivors: int) -> Mean:
        """The weighted mean of `survivors` clients from the signed sum, shape (size,)."""
        p = self._params
        check_sum(p, total, survivors)
        weight = int(total[p.dim]) if p.weighted else survivors
        scale = p.clip / p.levels * (p.max_weight / weight)
        return Mean(np.asarray(total[: p.dim] * scale, dtype=np.float64), weight)


def check_codes(params: Params, codes: Codes) -> None:
    """Refuse a vector that no codec of these parameters makes: SHAPE_MISMATCH or INPUT_RANGE."""
    if not isinstance(codes, np.ndarray) or codes.shape != (params.size,) or codes.dtype != np.int64:
        found = f"{codes.dtype} {codes.shape}" if isinstance(codes, np.ndarray) else type(codes).__name__
        raise LocalError(f"codes are int64 of shape ({params.size},), not {found}", AbortCode.SHAPE_MISMATCH)
    values = codes[: params.dim]
    if values.max() > params.levels or values.min() < -params.levels:
        raise LocalError(f"a code exceeds the {params.levels} levels", AbortCode.INPUT_RANGE)
    if params.weighted and not 1 <= codes[params.dim] <= params.max_weight:
        raise LocalError(f"the weight lies outside 1..{params.max_weight}", AbortCode.INPUT_RANGE)


def check_sum(params: Params, total: Codes, survivors: int) -> None:
    """Aborts with IMPLAUSIBLE_SUM where the survivors cannot have sent this sum."""
    values = total[: params.dim]
    bound = survivors * params.levels
    if survivors < 1 or values.max() > bound or values.min() < -bound:
        raise Aborted(AbortCode.IMPLAUSIBLE_SUM)
    if params.weighted and not survivors <= total[params.dim] <= survivors * params.max_weight:
        raise Aborted(AbortCode.IMPLAUSIBLE_SUM, "the sum of weights is out of range")


def to_signed(params: Params, residues: NDArray[np.unsignedinteger]) -> Codes:
    """Residues modulo 2^m to the signed sum, shape (size,): above half the modulus means negative.

    The weight coordinate is never negative and stays as it is.
    """
    total = residues.astype(np.int64)
    values = total[: params.dim]
    values[values >= params.modulus // 2] -= params.modulus
    return total
