"""Private keys of members and coordinators in files of mode 600, optionally sealed under a passphrase.

A key file is one JSON object: its public part in clear and the private keys either in clear or sealed with
AES-256-GCM under scrypt(passphrase), bound to the public part. Nothing of it is ever printed.
"""

import base64
import binascii
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from merveil.fl.ledger import check_private, sync_folder, write_synced
from merveil.protocols.errors import LocalError
from merveil.protocols.identity import Coordinator, Identity
from merveil.protocols.primitives.aead import open_once, seal_once

_COST = 1 << 15  # scrypt n; with r = 8 a guess costs 32 MB and about a tenth of a second
_SALT = 16


@dataclass(frozen=True)
class Invitation:
    """What a member needs to ask for admission. federation: 32-byte id; anchor, agree: public keys."""

    federation: bytes
    anchor: bytes
    agree: bytes

    def encode(self) -> bytes:
        value = {"format": 1, "kind": "merveil-federation", "federation": self.federation.hex(),
                 "anchor": self.anchor.hex(), "agree": self.agree.hex()}  # fmt: skip
        return (json.dumps(value, indent=1) + "\n").encode()

    @classmethod
    def load(cls, path: Path) -> "Invitation":
        value = _read_json(path, "merveil-federation")
        return cls(*(_bytes(value, name, path) for name in ("federation", "anchor", "agree")))


def _read_json(path: Path, kind: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LocalError(f"{path} does not exist") from None
    except (ValueError, UnicodeDecodeError):
        raise LocalError(f"{path} is not a {kind} file: it is no JSON") from None
    if not isinstance(value, dict) or value.get("kind") != kind or value.get("format") != 1:
        raise LocalError(f"{path} is not a {kind} file of format 1")
    return value


def _bytes(value: dict[str, Any], name: str, path: Path, size: int = 32) -> bytes:
    try:
        found = bytes.fromhex(value[name])
    except (KeyError, TypeError, ValueError):
        raise LocalError(f"{path}: {name} is missing or no hexadecimal") from None
    if len(found) != size:
        raise LocalError(f"{path}: {name} has {len(found)} bytes, not {size}")
    return found


def write_private(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a file of mode 600, whole or not at all; an existing one only with `force`."""
    if os.path.lexists(path) and not force:
        raise LocalError(f"{path} exists: choose another place, or --force to replace it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_synced(temporary, data)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(path.parent)


def _wrapping_key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase.encode())


def _seal(kind: str, public: dict[str, str], secret: bytes, passphrase: str | None) -> bytes:
    value: dict[str, Any] = {"format": 1, "kind": kind, **public}
    if passphrase is None:
        return (json.dumps({**value, "secret": secret.hex()}, indent=1) + "\n").encode()
    if not passphrase:
        raise LocalError("an empty passphrase protects nothing: leave it out, or choose one")
    salt = os.urandom(_SALT)
    sealed = seal_once(_wrapping_key(passphrase, salt), secret, json.dumps(value, sort_keys=True).encode())
    value |= {"scrypt": {"n": _COST, "r": 8, "p": 1, "salt": salt.hex()}}
    return (json.dumps({**value, "sealed": base64.b64encode(sealed).decode()}, indent=1) + "\n").encode()


def _open(path: Path, kind: str, passphrase: str | None) -> tuple[dict[str, Any], bytes]:
    value = _read_json(path, kind)
    check_private(path)
    if "secret" in value:
        return value, _bytes(value, "secret", path, 64)
    if passphrase is None:
        raise LocalError(f"{path} is sealed: give its passphrase (--passphrase-file)")
    bound = {k: v for k, v in value.items() if k not in ("scrypt", "sealed")}
    try:
        setting = value["scrypt"]
        if (setting["n"], setting["r"], setting["p"]) != (_COST, 8, 1):
            raise LocalError(f"{path}: unknown scrypt settings")
        salt = bytes.fromhex(setting["salt"])
        sealed = base64.b64decode(value["sealed"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise LocalError(f"{path} is damaged") from None
    key = _wrapping_key(passphrase, salt)
    secret = open_once(key, sealed, json.dumps(bound, sort_keys=True).encode())
    if secret is None or len(secret) != 64:
        raise LocalError(f"{path}: wrong passphrase, or the file is damaged")
    return value, secret


def is_sealed(path: Path) -> bool:
    """Whether a key file needs a passphrase; False for a file that is none."""
    try:
        return "sealed" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _secret(sign: Ed25519PrivateKey, agree: X25519PrivateKey) -> bytes:
    return sign.private_bytes_raw() + agree.private_bytes_raw()


def _keys(secret: bytes) -> tuple[Ed25519PrivateKey, X25519PrivateKey]:
    sign, agree = secret[:32], secret[32:]
    return Ed25519PrivateKey.from_private_bytes(sign), X25519PrivateKey.from_private_bytes(agree)


def save_identity(
    path: Path, identity: Identity, passphrase: str | None = None, *, force: bool = False
) -> None:
    """Write a member's keys."""
    member = identity.member
    public = {"name": member.name, "sign_key": member.sign_key.hex(), "agree_key": member.agree_key.hex()}
    secret = _secret(identity.sign_key, identity.agree_key)
    write_private(path, _seal("merveil-identity", public, secret, passphrase), force=force)


def load_identity(path: Path, passphrase: str | None = None) -> Identity:
    """Read a member's keys. LocalError: missing, readable by others, damaged, sealed, wrong passphrase."""
    value, secret = _open(path, "merveil-identity", passphrase)
    identity = Identity(str(value.get("name")), *_keys(secret))
    member = identity.member
    if (value.get("sign_key"), value.get("agree_key")) != (member.sign_key.hex(), member.agree_key.hex()):
        raise LocalError(f"{path} is damaged: its public and private keys do not belong together")
    return identity


def save_coordinator(
    path: Path, coordinator: Coordinator, passphrase: str | None = None, *, force: bool = False
) -> None:
    """Write a coordinator's keys."""
    public = {"federation": coordinator.federation.hex(), "anchor": coordinator.anchor.hex()}
    secret = _secret(coordinator.sign_key, coordinator.agree_key)
    write_private(path, _seal("merveil-coordinator", public, secret, passphrase), force=force)


def load_coordinator(path: Path, passphrase: str | None = None) -> Coordinator:
    """Read a coordinator's keys; errors as `load_identity`."""
    value, secret = _open(path, "merveil-coordinator", passphrase)
    coordinator = Coordinator(_bytes(value, "federation", path), *_keys(secret))
    if value.get("anchor") != coordinator.anchor.hex():
        raise LocalError(f"{path} is damaged: its public and private keys do not belong together")
    return coordinator
