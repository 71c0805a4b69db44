"""Secure aggregation for any Flower app of the Message API (flwr 1.41; extra `[flower]`).

In the app: `ClientApp(mods=[SecureMod()])` at the clients, `secured(FedAvg(...), clip=1.0)` at the server.
The app's code trains as before; what leaves a node are frames of a scheme's sessions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merveil.fl.flower.grid import SecureGrid
    from merveil.fl.flower.mod import SecureMod
    from merveil.fl.flower.strategy import secured

_HOME = {
    "SecureGrid": "merveil.fl.flower.grid",
    "SecureMod": "merveil.fl.flower.mod",
    "secured": "merveil.fl.flower.strategy",
}

__all__ = ["SecureGrid", "SecureMod", "secured"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'merveil.fl.flower' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "flwr":
            raise
        raise ImportError("flwr is not installed: pip install 'merveil[flower]'") from error
