"""name -> scheme: the one list of schemes. Weakened schemes of audits/broken are never in it."""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from merveil.protocols.errors import LocalError
from merveil.protocols.session import Scheme

# module and class, so that a scheme's dependencies load only when it is used
_SCHEMES = {
    "plain": ("merveil.protocols.plain", "Plain"),
    "ckks": ("merveil.protocols.ckks", "Ckks"),
    "secagg": ("merveil.protocols.secagg", "SecAgg"),
    "secagg+": ("merveil.protocols.secagg", "SecAggPlus"),
}


def names() -> tuple[str, ...]:
    """Names of all schemes, weakest first."""
    return tuple(_SCHEMES)


def get(name: str) -> Scheme:
    """The scheme of a name; LocalError lists the known names."""
    if name not in _SCHEMES:
        raise LocalError(f"unknown scheme {name!r}: choose one of {', '.join(_SCHEMES)}")
    module, attribute = _SCHEMES[name]
    make = cast(Callable[[], Scheme], getattr(import_module(module), attribute))
    return make()
