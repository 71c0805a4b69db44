"""What a round is about, as the server announces it: public, the same for everyone, and no say in a policy.

A client rebuilds the parameters from these few values and holds them against its own policy. Everything in
here enters the context, so two parties that were told different things share no key.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from merveil.protocols.api import make_context
from merveil.protocols.context import Context
from merveil.protocols.errors import AbortCode, RemoteError
from merveil.protocols.identity import Roster
from merveil.protocols.params import Params
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.registry import get

LIMIT = 4096  # bytes of an encoded task
_VECTOR = ("MASKED", "SUBMIT")  # phases in which a vector travels


@dataclass(frozen=True)
class Task:
    """One attempt at one round.

    scheme: a registry name. cohort: clients invited. dim: values of one update. bits, clip, max_weight,
    threshold (0: the scheme's own): as in Params. model_hash, config_hash: hexadecimal SHA-256. mechanism: of
    differential privacy (`private.encode`), inside the configuration hash; empty: no noise.
    """

    scheme: str
    round: int
    attempt: int
    cohort: int
    dim: int
    bits: int
    clip: float
    max_weight: int
    threshold: int
    model_hash: str
    config_hash: str
    mechanism: str = ""

    def params(self) -> Params:
        """LocalError where no secure choice exists, or for values out of range."""
        return get(self.scheme).params(
            self.cohort,
            self.dim,
            bits=self.bits,
            clip=self.clip,
            max_weight=self.max_weight,
            threshold=self.threshold or None,
        )

    def settings(self) -> dict[str, Any]:
        """Arguments that `client_session` and `server_session` share."""
        return {
            "params": self.params(),
            "model_hash": bytes.fromhex(self.model_hash),
            "config_hash": bytes.fromhex(self.config_hash),
            "round": self.round,
            "attempt": self.attempt,
        }

    def context(self, roster: Roster) -> Context:
        """The context that both sides compute for themselves."""
        found = self.settings()
        return make_context(
            get(self.scheme),
            found["params"],
            roster,
            found["model_hash"],
            found["config_hash"],
            self.round,
            self.attempt,
        )

    @property
    def vector_phase(self) -> str:
        """The phase in which the vector is due: until then nothing of the data is in any message."""
        return next(p.value for p in get(self.scheme).phases if p.value in _VECTOR)

    def encode(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Task":
        """Inverse of `encode`. RemoteError (MALFORMED_FRAME, culprit 0) for anything else."""
        try:
            if len(data) > LIMIT:
                raise ValueError(f"{len(data)} bytes")
            value = json.loads(data)
            kinds = {f.name: f.type for f in fields(cls)}
            if not isinstance(value, dict) or set(value) != set(kinds):
                raise ValueError("other fields than a task has")
            for name, kind in kinds.items():
                if type(value[name]) is not kind:
                    raise ValueError(f"{name} is no {getattr(kind, '__name__', kind)}")
            for name in ("model_hash", "config_hash"):
                if len(bytes.fromhex(value[name])) != 32:
                    raise ValueError(f"{name} has not 32 bytes")
            return cls(**value)
        except (ValueError, RecursionError) as error:
            raise RemoteError(
                f"the server's task is malformed: {error}", (0,), AbortCode.MALFORMED_FRAME
            ) from error


def digest(purpose: str, *parts: bytes) -> str:
    """Hexadecimal hash of length-prefixed parts, for the model and configuration hashes of a task."""
    return hash_fields(f"deploy/1/{purpose}", *parts).hex()
