"""Positive control of A22: clients that bind no model, so that each may be sent another one."""

from collections.abc import Callable
from typing import Any

from merveil.attacks.protocol import Build
from merveil.protocols.api import client_session, server_session

_NONE = bytes(32)


def _client(scheme: str, **settings: Any) -> Any:
    return client_session(scheme, **{**settings, "model_hash": _NONE})


def _server(scheme: str, **settings: Any) -> Any:
    return server_session(scheme, **{**settings, "model_hash": _NONE})


BUILDS: dict[str, Callable[[], Build]] = {
    "A22": lambda: Build("secagg", "secagg, the model's hash not bound", client=_client, server=_server),
}
