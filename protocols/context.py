"""What a session is bound to.

The context is a hash over everything the parties must agree on before they talk; the session id adds what
they said first, so it is fresh even where every public input repeats. All 32 bytes enter each KDF, AAD and
signature; frames carry the first 16 for routing.
"""

from dataclasses import dataclass
from functools import cached_property

from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.primitives.kdf import hash_fields

FINGERPRINT = 48
_PART = 8


@dataclass(frozen=True)
class Context:
    """The public inputs of one attempt at one round.

    suite: scheme name with version, e.g. `secagg/1`. federation: 32 bytes. cohort: ascending roster indices.
    params: canonical encoding. model_hash, config_hash: 32 bytes each, of the model that the update starts
    from and of the task's configuration.
    """

    suite: str
    federation: bytes
    serial: int
    roster_hash: bytes
    cohort: tuple[int, ...]
    round: int
    attempt: int
    params: bytes
    model_hash: bytes
    config_hash: bytes

    def __post_init__(self) -> None:
        if not (1 <= self.round < 2**32 and 1 <= self.attempt < 2**16):
            raise LocalError(f"round {self.round} and attempt {self.attempt} start at 1")
        if len(self.model_hash) != 32 or len(self.config_hash) != 32:
            raise LocalError("model_hash and config_hash are SHA-256 digests of 32 bytes")

    @cached_property
    def _cohort(self) -> bytes:
        return b"".join(i.to_bytes(2, "big") for i in self.cohort)

    @cached_property
    def digest(self) -> bytes:
        """The 32-byte context."""
        return hash_fields(
            "context/1",
            self.suite.encode(),
            self.federation,
            self.serial.to_bytes(4, "big"),
            self.roster_hash,
            self._cohort,
            self.round.to_bytes(4, "big"),
            self.attempt.to_bytes(2, "big"),
            self.params,
            self.model_hash,
            self.config_hash,
        )

    @cached_property
    def fingerprint(self) -> bytes:
        """48 bytes: eight of each component's hash, so that a mismatch can be named. Not authoritative."""
        parts = (
            self.roster_hash + self.federation + self.serial.to_bytes(4, "big") + self._cohort,
            self.suite.encode() + b"\x00" + self.params,
            self.model_hash,
            self.config_hash,
            self.round.to_bytes(4, "big"),
            self.attempt.to_bytes(2, "big"),
        )
        return b"".join(hash_fields("context/1/part", part)[:_PART] for part in parts)

    def difference(self, fingerprint: bytes) -> AbortCode | None:
        """Which component a peer's fingerprint disagrees on; None where they agree."""
        codes = (
            AbortCode.ROSTER_MISMATCH,
            AbortCode.PARAMS_MISMATCH,
            AbortCode.MODEL_MISMATCH,
            AbortCode.MODEL_MISMATCH,
            AbortCode.STALE_KEY,
            AbortCode.STALE_KEY,
        )
        for i, code in enumerate(codes):
            if fingerprint[i * _PART : (i + 1) * _PART] != self.fingerprint[i * _PART : (i + 1) * _PART]:
                return code
        return None
