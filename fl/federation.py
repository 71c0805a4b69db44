"""A coordinator's folder: its key, the members it admitted, and the roster it signed last.

`coordinator.key` (600) | `federation.json`, the public invitation | `members.json`, admitted members in
roster order and the last serial | `roster.bin`, the signed roster that goes to everyone.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from merveil.fl.files import write_bytes
from merveil.fl.keys import Invitation, load_coordinator, save_coordinator
from merveil.protocols.errors import LocalError, RemoteError
from merveil.protocols.identity import Coordinator, Member, Roster

KEY, PUBLIC, MEMBERS, ROSTER = "coordinator.key", "federation.json", "members.json", "roster.bin"
DAY = 86_400


@dataclass
class Folder:
    """A coordinator's folder, without its private keys. members: in roster order. serial: the last signed."""

    path: Path
    invitation: Invitation
    members: list[Member] = field(default_factory=list)
    serial: int = 0

    @classmethod
    def init(cls, path: Path, passphrase: str | None, *, force: bool = False) -> "Folder":
        """Draw a coordinator's keys and an empty member list. LocalError where there is one already."""
        path.mkdir(parents=True, exist_ok=True)
        coordinator = Coordinator.generate()
        save_coordinator(path / KEY, coordinator, passphrase, force=force)
        invitation = Invitation(coordinator.federation, coordinator.anchor, coordinator.agree_public)
        write_bytes(path / PUBLIC, invitation.encode())
        folder = cls(path, invitation)
        folder.save()
        (path / ROSTER).unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, path: Path) -> "Folder":
        """Read the public part. LocalError: no coordinator's folder, or damaged."""
        invitation = Invitation.load(path / PUBLIC)
        try:
            value = json.loads((path / MEMBERS).read_bytes())
            members = [
                Member(str(m["name"]), bytes.fromhex(m["sign_key"]), bytes.fromhex(m["agree_key"]))
                for m in value["members"]
            ]
            serial = int(value["serial"])
        except FileNotFoundError:
            raise LocalError(f"{path} holds no {MEMBERS}: it is no coordinator's folder") from None
        except (ValueError, KeyError, TypeError) as error:
            raise LocalError(f"{path / MEMBERS} is damaged: {error}") from error
        return cls(path, invitation, members, serial)

    def save(self) -> None:
        rows = [
            {"name": m.name, "sign_key": m.sign_key.hex(), "agree_key": m.agree_key.hex()}
            for m in self.members
        ]
        write_bytes(
            self.path / MEMBERS,
            (json.dumps({"serial": self.serial, "members": rows}, indent=1) + "\n").encode(),
        )

    def coordinator(self, passphrase: str | None) -> Coordinator:
        """The private keys, checked against the invitation."""
        found = load_coordinator(self.path / KEY, passphrase)
        if (found.federation, found.anchor) != (self.invitation.federation, self.invitation.anchor):
            raise LocalError(f"{self.path / KEY} belongs to another federation than {self.path / PUBLIC}")
        return found

    def _position(self, name: str) -> int:
        for at, m in enumerate(self.members):
            if m.name == name:
                return at
        raise LocalError(f"{name!r} is no member: there are {[m.name for m in self.members]}")

    def _admit(self, coordinator: Coordinator, request: Path, others: Sequence[Member]) -> Member:
        try:
            member = coordinator.admit(request.read_bytes())
        except RemoteError as error:
            raise LocalError(f"{request}: {error}", error.code) from error
        for m in others:
            for what in ("name", "sign_key", "agree_key"):
                if getattr(m, what) == getattr(member, what):
                    raise LocalError(f"{request}: its {what} is that of member {m.name!r}", None)
        return member

    def add(self, coordinator: Coordinator, request: Path) -> Member:
        """Admit a member by its request file. LocalError: no proof of possession, or a double."""
        member = self._admit(coordinator, request, self.members)
        self.members.append(member)
        self.save()
        return member

    def rotate(self, coordinator: Coordinator, request: Path) -> Member:
        """Replace a member's keys by those of a new request under the same name; its place stays."""
        try:
            name = coordinator.admit(request.read_bytes()).name
        except RemoteError as error:
            raise LocalError(f"{request}: {error}", error.code) from error
        at = self._position(name)
        old = self.members[at]
        member = self._admit(coordinator, request, [*self.members[:at], *self.members[at + 1 :]])
        if old.sign_key == member.sign_key or old.agree_key == member.agree_key:
            raise LocalError(f"{request} repeats a key of {name!r}: a rotation brings two new ones")
        self.members[at] = member
        self.save()
        return member

    def remove(self, name: str) -> None:
        """Drop a member; those behind it move up in the next roster."""
        self.members.pop(self._position(name))
        self.save()

    def sign(self, coordinator: Coordinator, *, days: int, max_rounds: int, now: int | None = None) -> Roster:
        """Sign the members under the next serial and a new beacon, and write the roster.

        The serial is noted first: a crash in between skips one, and none is ever used twice.
        """
        if not 1 <= days <= 36_500:
            raise LocalError(f"a roster is valid for 1 to 36500 days, not {days}")
        began = int(time.time()) if now is None else now
        self.serial += 1
        roster = coordinator.sign(
            self.members,
            serial=self.serial,
            not_before=began - 300,  # clocks differ by minutes
            expires=began + days * DAY,
            max_rounds=max_rounds,
        )
        self.save()
        write_bytes(self.path / ROSTER, roster.data)
        return roster

    def roster(self) -> Roster | None:
        """The roster signed last, verified; None where there is none yet."""
        path = self.path / ROSTER
        return load_roster(path, self.invitation.anchor) if path.exists() else None


def load_roster(path: Path, anchor: bytes) -> Roster:
    """Read and verify a roster file. LocalError: no roster; Aborted: BAD_SIGNATURE, BAD_KEY."""
    try:
        return Roster.open(path.read_bytes(), anchor)
    except RemoteError as error:
        raise LocalError(f"{path} is no roster: {error}", error.code) from error
