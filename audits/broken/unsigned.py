"""Positive control of A17: a server of `plain` that takes frames without looking at their signature."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from merveil.protocols.errors import RemoteError
from merveil.protocols.frame import HEAD, Frame, malformed
from merveil.protocols.plain.messages import body_size, decode_vector
from merveil.protocols.session import Outcome, Phase


class UnsignedServer:
    """Sums what parses; the first frame of a client counts. In no registry, reachable from no option."""

    late = 0

    def __init__(self, scheme: str, *, params: Any, **_: Any) -> None:
        self._params = params
        self._taken: dict[int, Any] = {}
        self.excluded: dict[int, Any] = {}
        self.phase = Phase.SUBMIT

    def start(self) -> Sequence[Frame]:
        return ()

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        if len(data) > HEAD.size + body_size(self._params) + 64:
            raise malformed("too long", sender)
        frame = Frame.decode(data, sender, body_size(self._params))
        codes = decode_vector(self._params, frame.body, sender)[2]
        if np.abs(codes).max() > self._params.levels:
            raise RemoteError("out of range", (sender,))
        self._taken.setdefault(sender, codes)
        return ()

    def close_phase(self) -> Sequence[Frame]:
        self.phase = Phase.DONE
        return ()

    def result(self) -> Outcome:
        total = np.sum(list(self._taken.values()), axis=0)
        return Outcome(total, tuple(sorted(self._taken)), {})
