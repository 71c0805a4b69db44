"""merveil: federated micro-expression recognition behind secure aggregation.

Importing this module loads neither torch nor any other extra; names below are resolved on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from merveil.fl.aggregator import Aggregate, SecureAggregator
    from merveil.protocols.api import client_session, phases, server_session
    from merveil.protocols.errors import (
        AbortCode,
        Aborted,
        LocalError,
        MerveilError,
        RemoteError,
        SessionSpent,
    )

_HOME = {
    "Aggregate": "merveil.fl.aggregator",
    "SecureAggregator": "merveil.fl.aggregator",
    "client_session": "merveil.protocols.api",
    "phases": "merveil.protocols.api",
    "server_session": "merveil.protocols.api",
    "AbortCode": "merveil.protocols.errors",
    "Aborted": "merveil.protocols.errors",
    "LocalError": "merveil.protocols.errors",
    "MerveilError": "merveil.protocols.errors",
    "RemoteError": "merveil.protocols.errors",
    "SessionSpent": "merveil.protocols.errors",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'merveil' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
