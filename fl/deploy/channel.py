"""Messages between a server and its sites: one length, one kind, a small JSON head, and bytes.

    4 bytes  length of what follows | 1 byte kind | 4 bytes length of the head | head, JSON | payload

Lengths are held against a limit before anything is allocated. The channel is TLS; who is at the other end is
shown by `proof_fields`, which a site signs with its roster key: both nonces, the server's certificate as the
site saw it, and the roster. A relay with another certificate gets a signature that is good for nothing.
"""

import enum
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from merveil.protocols.errors import AbortCode, RemoteError
from merveil.protocols.identity import Roster

VERSION = 1
SITE_PURPOSE = "site/1/hello"
NONCE = 32
BEFORE_LOGIN = 4096  # bytes of a message from somebody who has not shown who it is
_HEAD = struct.Struct(">IBI")
_COUNT = struct.Struct(">I")
_SIZE = struct.Struct(">Q")


class Kind(enum.IntEnum):
    """HELLO, WELCOME, TASK, FRAMES, BYE come from the server, LOGIN and REPLY from a site."""

    HELLO = 1
    LOGIN = 2
    WELCOME = 3
    TASK = 4
    FRAMES = 5
    REPLY = 6
    BYE = 7


@dataclass(frozen=True)
class Message:
    kind: Kind
    head: dict[str, Any]
    payload: bytes = field(default=b"", repr=False)

    def text(self, name: str) -> str:
        return self._typed(name, str)

    def number(self, name: str) -> int:
        return self._typed(name, int)

    def data(self, name: str, size: int) -> bytes:
        """Hexadecimal bytes of exactly this size."""
        try:
            found = bytes.fromhex(self.text(name))
        except ValueError:
            raise _malformed(f"{name} is not hexadecimal") from None
        if len(found) != size:
            raise _malformed(f"{name} has {len(found)} bytes, not {size}")
        return found

    def _typed(self, name: str, kind: type) -> Any:
        value = self.head.get(name)
        if type(value) is not kind:
            raise _malformed(f"{self.kind.name} has no {name}")
        return value


def _malformed(why: str) -> RemoteError:
    return RemoteError(f"malformed message: {why}", (0,), AbortCode.MALFORMED_FRAME)


def pack(kind: Kind, head: dict[str, Any], payload: bytes = b"") -> bytes:
    """One message as bytes."""
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((_HEAD.pack(5 + len(text) + len(payload), kind, len(text)), text, payload))


def size_of(prefix: bytes, limit: int) -> int:
    """Bytes that follow the four of the length. RemoteError above the limit, or below the smallest."""
    (size,) = _COUNT.unpack(prefix)
    if not 5 <= size <= limit:
        raise _malformed(f"{size} bytes, of at most {limit}")
    return int(size)


def unpack(body: bytes) -> Message:
    """A message without its first four bytes. RemoteError (MALFORMED_FRAME) for anything else."""
    kind, text = body[0], int.from_bytes(body[1:5], "big")
    if text > len(body) - 5:
        raise _malformed("the head is cut off")
    try:
        head = json.loads(body[5 : 5 + text])
        if not isinstance(head, dict):
            raise ValueError("the head is no object")
        return Message(Kind(kind), head, body[5 + text :])
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error)) from None


def pack_list(parts: Sequence[bytes]) -> bytes:
    """Count, then each part with its length."""
    found = [_COUNT.pack(len(parts))]
    for part in parts:
        found += [_SIZE.pack(len(part)), part]
    return b"".join(found)


def unpack_list(data: bytes, most: int = 65_536) -> list[bytes]:
    """Inverse of `pack_list`. RemoteError (MALFORMED_FRAME) for anything else."""
    at, found = 4, []
    if len(data) < 4 or _COUNT.unpack_from(data)[0] > most:
        raise _malformed("no list of parts")
    for _ in range(_COUNT.unpack_from(data)[0]):
        if len(data) < at + 8:
            raise _malformed("a part is cut off")
        (size,) = _SIZE.unpack_from(data, at)
        if size > len(data) - at - 8:
            raise _malformed("a part is cut off")
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if at != len(data):
        raise _malformed("bytes are left over")
    return found


def proof_fields(
    roster: Roster, index: int, server_nonce: bytes, site_nonce: bytes, certificate: bytes
) -> tuple[bytes, ...]:
    """What a site signs to log in. certificate: SHA-256 of the server's, 32 bytes."""
    return (roster.federation, roster.hash, index.to_bytes(2, "big"), server_nonce, site_nonce, certificate)
