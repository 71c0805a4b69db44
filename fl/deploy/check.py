"""`merveil site --check`: everything that can be known before taking part, without taking part.

Nothing is written to the ledger and no round is opened. Each check says what it found; the first that fails
does not stop the others, unless they need what it could not give.
"""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merveil.fl.deploy import private
from merveil.fl.deploy.channel import Message
from merveil.fl.deploy.config import SiteSettings
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.site import Link
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Work
from merveil.fl.ledger import write_synced
from merveil.mer.errors import InputError
from merveil.protocols.errors import LocalError, MerveilError
from merveil.protocols.registry import get

CLOCK_SECONDS = 120.0
_PROBE = 1 << 20


@dataclass(frozen=True)
class Check:
    """name: keys, roster, ledger, privacy, disk, data, tls, clock, policy. text: what was found, no secret in
    it."""

    name: str
    ok: bool
    text: str


def check_site(
    settings: SiteSettings, passphrase: str | None, open_data: Callable[[str], Any]
) -> list[Check]:
    """All checks in order. open_data: reads the archive."""
    found: list[Check] = []

    def attempt(name: str, probe: Callable[[], tuple[str, Any]]) -> Any:
        try:
            text, value = probe()
            found.append(Check(name, True, text))
            return value
        except (MerveilError, InputError, OSError, ImportError) as error:
            found.append(Check(name, False, str(error)))
            return None

    member = attempt("keys", lambda: _keys(settings.home, passphrase))
    if member is not None:
        attempt("roster", lambda: _roster(member))
        attempt("ledger", lambda: _ledger(member))
        attempt("privacy", lambda: _privacy(member))
    attempt("disk", lambda: _disk(settings))
    archive = attempt("data", lambda: _data(settings, open_data))
    welcome = attempt("tls", lambda: _tls(settings, member)) if member is not None else None
    if welcome is not None:
        attempt("clock", lambda: _clock(welcome))
        attempt("policy", lambda: _policy(member, welcome, archive))
    return found


def _keys(home: Path, passphrase: str | None) -> tuple[str, Member]:
    member = Member.load(home, passphrase)
    return f"{member.identity.name!r} is member {member.index} of {len(member.roster)}", member


def _roster(member: Member) -> tuple[str, None]:
    roster = member.roster
    roster.check_time(int(time.time()))
    days = (roster.expires - time.time()) / 86_400
    return f"serial {roster.serial}, fingerprint {roster.fingerprint()}, valid for {days:.0f} more days", None


def _ledger(member: Member) -> tuple[str, None]:
    with member.ledger():
        return "present, private, and not in use", None


def _privacy(member: Member) -> tuple[str, None]:
    """What this party's policy allows and what it has spent; the figures are its own and are not sent."""
    found = private.spent(member)
    if found is None:
        return "policy.toml has no dp_epsilon: this site takes part in no training with noise", None
    left = max(0.0, found["target_epsilon"] - found["epsilon"])
    return (
        f"unit: the whole site; epsilon {found['epsilon']:.4g} of {found['target_epsilon']:g} spent in "
        f"{found['uploads']} uploads, {left:.4g} left, at delta {found['delta']:g}; updates of 2-norm "
        f"{found['norm_clip']:g} at most; sums without noise are refused"
    ), None


def _disk(settings: SiteSettings) -> tuple[str, None]:
    """Room, and that a synced write works where the ledger lies."""
    free = shutil.disk_usage(settings.home).free
    if free < settings.free_megabytes * 1_000_000:
        raise LocalError(f"{free // 1_000_000} MB are free, {settings.free_megabytes} are asked for")
    probe = settings.home / f".probe.{os.getpid()}.part"
    begun = time.monotonic()
    try:
        write_synced(probe, bytes(_PROBE))
    finally:
        probe.unlink(missing_ok=True)
    return f"{free // 1_000_000} MB free, a synced megabyte in {time.monotonic() - begun:.2f} s", None


def _data(settings: SiteSettings, open_data: Callable[[str], Any]) -> tuple[str, Any]:
    archive = open_data(settings.data)
    shape = "x".join(str(side) for side in archive.x.shape[1:])
    return f"{archive.n} clips of {shape}, classes {', '.join(archive.classes)}", archive


def _tls(settings: SiteSettings, member: Member) -> tuple[str, Message]:
    with closing(Link(settings)) as link:
        welcome = link.login(member)
        return f"{settings.server} is the server of {settings.certificate}, and knows this member", welcome


def _clock(welcome: Message) -> tuple[str, None]:
    theirs: Any = welcome.head.get("time")
    if not isinstance(theirs, (int, float)):
        raise LocalError("the server told no time")
    apart = time.time() - theirs
    if abs(apart) > CLOCK_SECONDS:
        raise LocalError(f"this clock is {apart:+.0f} s from the server's: set both by the same source")
    return f"{apart:+.1f} s from the server's", None


def _policy(member: Member, welcome: Message, archive: Any) -> tuple[str, None]:
    """The parameters to come against this party's own policy, and its data against their shape."""
    task = Task.decode(welcome.text("task").encode())
    params = task.params()
    member.policy.check(params, task.round)
    get(task.scheme).check_policy(params, member.policy)
    if task.cohort != len(member.roster):
        raise LocalError(f"the server invites {task.cohort} members, the roster has {len(member.roster)}")
    work = Work.decode(welcome.text("work"), b"")
    mechanism = private.judge(member, task, work)
    data = work.data
    if archive is not None and (archive.x.shape[1:], archive.classes) != (data.shape, data.classes):
        raise LocalError(f"this site's clips are not of the federation's shape {data.shape} and classes")
    if archive is not None:
        archive.check_near(work.options.apex_jitter)
    noise = ""
    if mechanism is not None:
        left = private.rounds_left(member, mechanism)
        multiplier = mechanism.release().multiplier
        noise = f"; {mechanism.kind} noise of {multiplier:.3g} sensitivities, {left} rounds of it can be paid"
        if not left:
            raise LocalError(f"BUDGET_SPENT: this site can pay no round of the server's noise{noise}")
    return (
        f"{task.scheme}, threshold {params.threshold} of {params.cohort}, sums of at least {params.honest} "
        f"honest members{noise}: accepted"
    ), None


def failed(checks: list[Check]) -> bool:
    return not all(check.ok for check in checks)
