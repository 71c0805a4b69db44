"""Dense optical flow between two grey frames, with every parameter pinned and printable.

Convention of all flow arrays here: float32 [h, w, 2] in pixels, channel 0 is u (horizontal, positive to
the right), channel 1 is v (vertical, positive downwards); a point at (x, y) of the first frame lies at
(x + u, y + v) of the second.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features.opencv import opencv, with_optflow

Gray = NDArray[np.uint8]
Field = NDArray[np.float32]

# Zach, Pock, Bischof 2007 as in cv2.optflow.DualTVL1OpticalFlow; the values are OpenCV's defaults, pinned.
TVL1: Mapping[str, float] = MappingProxyType(
    {
        "Tau": 0.25,
        "Lambda": 0.15,
        "Theta": 0.3,
        "ScalesNumber": 5,
        "WarpingsNumber": 5,
        "Epsilon": 0.01,
        "InnerIterations": 30,
        "OuterIterations": 10,
        "ScaleStep": 0.8,
        "Gamma": 0.0,
        "MedianFiltering": 5,
    }
)
# Kroeger et al. 2016 as in cv2.DISOpticalFlow: preset MEDIUM, written out so that a release cannot move it.
DIS: Mapping[str, float] = MappingProxyType(
    {
        "FinestScale": 1,
        "CoarsestScale": -1,  # chosen from the picture size
        "PatchSize": 8,
        "PatchStride": 3,
        "GradientDescentIterations": 25,
        "VariationalRefinementIterations": 5,
        "VariationalRefinementAlpha": 20.0,
        "VariationalRefinementDelta": 5.0,
        "VariationalRefinementGamma": 10.0,
        "VariationalRefinementEpsilon": 0.01,
        "UseMeanNormalization": True,
        "UseSpatialPropagation": True,
    }
)
# The same solver, stopped earlier: 3 times as fast, and on known motion no less exact (ADR 0088).
TVL1_QUICK: Mapping[str, float] = MappingProxyType({**TVL1, "Epsilon": 0.03})
METHODS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"tvl1": TVL1, "tvl1-quick": TVL1_QUICK, "dis": DIS}
)
MIN_SIDE = 16  # below this the pyramids of both methods have nothing to work on


def describe(method: str) -> str:
    """One line with the method and all its parameters, as recorded in an archive's meta."""
    values = ", ".join(f"{key}={value:g}" for key, value in parameters(method).items())
    return f"{method}({values})"


def parameters(method: str) -> Mapping[str, float]:
    if method not in METHODS:
        raise InputError(f"unknown flow method {method!r}: choose one of {', '.join(METHODS)}")
    return METHODS[method]


def make_solver(method: str) -> Any:
    """A solver with `calc(first, second, None)`; one may be used for many pairs of frames."""
    values = parameters(method)
    if method != "dis":
        solver = with_optflow().optflow.DualTVL1OpticalFlow_create()
    else:
        cv2 = opencv()
        solver = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for key, value in values.items():
        getattr(solver, f"set{key}")(value)
    return solver


def flow(first: Gray, second: Gray, method: str = "tvl1", solver: Any = None) -> Field:
    """Flow from `first` to `second`: float32 [h, w, 2], u then v, in pixels.

    first, second: uint8 [h, w], equal shapes, at least 16 px a side. InputError for anything else.
    solver: one made by `make_solver(method)`, to spare its set-up over many pairs.
    """
    for name, frame in (("first", first), ("second", second)):
        if frame.ndim != 2 or frame.dtype != np.uint8:
            raise InputError(
                f"the {name} frame of a flow must be uint8 [h, w], not {frame.dtype} {list(frame.shape)}"
            )
    if first.shape != second.shape:
        raise InputError(
            f"the two frames of a flow differ in size: {list(first.shape)} and {list(second.shape)}"
        )
    if min(first.shape) < MIN_SIDE:
        raise InputError(
            f"frames of {list(first.shape)} are too small for flow: {MIN_SIDE} px a side at least"
        )
    result = (solver or make_solver(method)).calc(
        np.ascontiguousarray(first), np.ascontiguousarray(second), None
    )
    return np.asarray(result, dtype=np.float32)
