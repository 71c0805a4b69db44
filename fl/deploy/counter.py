"""Which round number a server uses next: a small file, so that a restart never asks for an answered round.

Members refuse a round that they answered, whoever restarts, so a lost file costs refused rounds and no
secret.
"""

from pathlib import Path

from merveil.fl.files import read_json, write_json
from merveil.protocols.errors import LocalError


class RoundCounter:
    """path: the file. federation: its id; another federation's file is refused (LocalError)."""

    def __init__(self, path: Path, federation: bytes) -> None:
        self._path, self._federation = path, federation.hex()
        self._last = 0
        if path.exists():
            value = read_json(path)
            if value.get("federation") != self._federation or type(value.get("last")) is not int:
                raise LocalError(f"{path} is no round counter of this federation: move it away")
            self._last = value["last"]

    @property
    def last(self) -> int:
        return self._last

    def next(self) -> int:
        """The next round's number, noted in the file before anybody hears of it."""
        self._last += 1
        write_json(self._path, {"federation": self._federation, "last": self._last})
        return self._last
