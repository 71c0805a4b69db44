"""Lazy imports of optional packages, with an error that names the extra to install."""

from importlib import import_module
from types import ModuleType


def need(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise ImportError that says which extra of merveil brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is not installed: pip install 'merveil[{extra}]'") from error
