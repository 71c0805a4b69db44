"""Small files of a run: bytes and JSON, written whole or not at all (merveil.mer.atomic)."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merveil.mer.atomic import writing
from merveil.mer.errors import InputError

TEMPORARY = ".part"  # ends the name of a file that is being written


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. OSError as the system says it."""
    with writing(path) as out:
        out.write(data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, whole or not at all; NaN is refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. InputError: missing, not JSON, not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return value


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
