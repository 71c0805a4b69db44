"""Versioned frames and a bounded reader for their bodies.

A frame is a 29-byte header, a body, and, from a client, a 64-byte Ed25519 signature over the header, the
body's SHA-256 and the 32-byte context (before the session id exists) or session id. Lengths are checked
before anything is allocated. docs/wire.md has the layout and vectors.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from merveil.protocols.errors import AbortCode, RemoteError
from merveil.protocols.primitives.sign import SIGNATURE, sign, verify

MAGIC = b"MV"
VERSION = 1
HEAD = struct.Struct(">2sBBB16sHHI")  # magic, version, suite, kind, session, sender, to, body length
SERVER = 0
_SIGN = "frame/1/sign"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. sender, to: roster indices, 0 is the server. session: 16 bytes that route it."""

    suite: int
    kind: int
    session: bytes
    sender: int
    to: int
    body: bytes
    signature: bytes = b""

    def head(self) -> bytes:
        return HEAD.pack(
            MAGIC, VERSION, self.suite, self.kind, self.session, self.sender, self.to, len(self.body)
        )

    def encode(self) -> bytes:
        return b"".join((self.head(), self.body, self.signature))

    @classmethod
    def decode(cls, data: bytes, sender: int, max_body: int) -> Self:
        """Parse exactly one frame from the sender whom the transport authenticated.

        Raises RemoteError (MALFORMED_FRAME) naming that sender for anything else.
        """
        tail = 0 if sender == SERVER else SIGNATURE
        if HEAD.size + tail <= len(data) <= HEAD.size + max_body + tail:
            magic, version, suite, kind, session, claimed, to, size = HEAD.unpack_from(data)
            if (magic, version, claimed, size) == (MAGIC, VERSION, sender, len(data) - HEAD.size - tail):
                end = HEAD.size + size
                return cls(suite, kind, session, sender, to, data[HEAD.size : end], data[end:])
        raise malformed("not a frame of this version", sender)

    def signed(self, key: Ed25519PrivateKey, binding: bytes) -> Self:
        """This frame with its signature. binding: the 32-byte context or session id."""
        fields = (binding, self.head(), hashlib.sha256(self.body).digest())
        signature = sign(key, _SIGN, *fields)
        return type(self)(self.suite, self.kind, self.session, self.sender, self.to, self.body, signature)

    def verify(self, public: bytes, binding: bytes) -> bool:
        """Whether the signature is the one of `public` over this frame and `binding`."""
        return verify(public, self.signature, _SIGN, binding, self.head(), hashlib.sha256(self.body).digest())

    def digest(self) -> bytes:
        """SHA-256 of header and body: what a survivor list commits to."""
        running = hashlib.sha256(self.head())
        running.update(self.body)
        return running.digest()


def malformed(why: str, sender: int) -> RemoteError:
    return RemoteError(f"frame from {sender}: {why}", (sender,), AbortCode.MALFORMED_FRAME)


class Reader:
    """Reads a body front to back; every overrun or leftover byte is the sender's fault."""

    __slots__ = ("_at", "_data", "_sender")

    def __init__(self, data: bytes, sender: int) -> None:
        self._data = data
        self._sender = sender
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise malformed("body too short", self._sender)
        part = self._data[self._at : end]
        self._at = end
        return part

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def blob(self, limit: int) -> bytes:
        """A length-prefixed (4 bytes) field of at most `limit` bytes."""
        size = self.u32()
        if size > limit:
            raise malformed("field too long", self._sender)
        return self.take(size)

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        if self._at != len(self._data):
            raise malformed("trailing bytes", self._sender)
