"""The way to numba: a missing extra names itself, compiled code is kept on disk where it can be."""

from collections.abc import Callable
from typing import Any, cast

from merveil.protocols.errors import LocalError

try:
    import numba  # type: ignore[import-untyped,unused-ignore]
except ImportError as error:
    raise LocalError("scheme 'lattice' needs numba: pip install 'merveil[lattice]'") from error

Kernel = Callable[..., Any]


def compiled(function: Kernel) -> Kernel:
    """The function as machine code, without the interpreter's lock."""
    try:
        return cast(Kernel, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the package's folder nor a cache folder can be written
        return cast(Kernel, numba.njit(nogil=True)(function))


def inlined(function: Kernel) -> Kernel:
    """A helper of compiled functions."""
    return cast(Kernel, numba.njit(nogil=True, inline="always")(function))
