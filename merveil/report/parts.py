"""Finished parts of a comparison, kept so that an interrupted one goes on where it stopped.

Guarantees: a part is used again only under the key that made it (data, settings, versions); it is written
whole or not at all. A damaged part is made again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merveil.mer.atomic import write_text
from merveil.mer.errors import InputError

FOLDER = "parts"
FILES = ("report.html", "report.json", "report.md")


def key_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 of everything that decides a part."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def open_out(out: Path) -> Path:
    """The folder of parts inside `out`, made where it is missing.

    InputError: `out` is a file, or holds things that no comparison made.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, not a folder")
    made = {FOLDER, "data", *FILES}
    if out.is_dir() and any(item.name not in made for item in out.iterdir() if item.name[0] != "."):
        raise InputError(f"--out {out} holds other files: name a new folder, or one of an earlier comparison")
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Parts:
    """A folder of parts; `settings` are what all of them share."""

    folder: Path
    settings: Mapping[str, Any]

    def get(self, name: str, make: Callable[[], dict[str, Any]], **own: Any) -> tuple[dict[str, Any], bool]:
        """The part of that name, made now or found: (part, whether it was found)."""
        key = key_of({**self.settings, "part": name, **own})
        path = self.folder / f"{name.replace('+', '-plus').replace(':', '-')}.json"
        held = self._read(path)
        if held.get("key") == key:
            return held["part"], True
        part = make()
        write_text(path, json.dumps({"key": key, "part": part}, allow_nan=False))
        return json.loads(json.dumps(part)), False

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}
