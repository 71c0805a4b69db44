"""Secure aggregation for NVFlare jobs (nvflare 2.9; extra `[nvflare]`): a Controller and an Executor.

In the job: `SecureController(...)` takes the place of the workflow, `SecureExecutor(executor)` wraps the one
that trains. A round is as many tasks as the scheme has phases; what leaves a client are frames of a session.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merveil.fl.nvflare.controller import SecureController
    from merveil.fl.nvflare.executor import SecureExecutor

_HOME = {
    "SecureController": "merveil.fl.nvflare.controller",
    "SecureExecutor": "merveil.fl.nvflare.executor",
}

__all__ = ["SecureController", "SecureExecutor"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'merveil.fl.nvflare' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "nvflare":
            raise
        raise ImportError("nvflare is not installed: pip install 'merveil[nvflare]'") from error
