"""name -> scheme: the one list of schemes. Weakened schemes of audits/broken are never in it."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.params import Params
from merveil.protocols.session import Scheme

# module and class, so that a scheme's dependencies load only when it is used
_SCHEMES = {
    "plain": ("merveil.protocols.plain", "Plain"),
    "ckks": ("merveil.protocols.ckks", "Ckks"),
    "lattice": ("merveil.protocols.lattice", "Lattice"),
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


def params_from(fields: Mapping[str, Any]) -> Params:
    """Parameters from a mapping of their fields, in the class that their scheme's have.

    LocalError for an unknown scheme or field, and for whatever the class refuses.
    """
    kind = type(get(str(fields.get("scheme"))).params(5, 1))
    unknown = set(fields) - set(kind.__dataclass_fields__)
    if unknown:
        raise LocalError(f"unknown parameters {sorted(unknown)}", AbortCode.PARAMS_MISMATCH)
    return kind(**fields)
