"""Differential privacy at a site: what a task may ask of its noise, and what its uploads may cost.

Guarantee: no vector leaves a site whose policy has dp_epsilon unless it carries noise whose cost, by the
site's own accountant at its own dp_delta, together with all that it paid before, stays within dp_epsilon. The
charge is on the site's disk before the frame that it pays for is made, once for each attempt at a round, and
is never given back. Nothing that a server sends is taken for granted: neither the noise's size, nor the
honest shares in a sum, nor what was spent.

Unit: the site's whole update, so all its clips and persons together, in every round that it paid for.
Assumes: the folder is not restored to an earlier state; the party's ledger admits one vector an attempt.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from merveil.fl import dp_options
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Work
from merveil.fl.dp import from_json, to_json
from merveil.fl.dp_ledger import Budget
from merveil.mer.errors import InputError
from merveil.protocols.codec import Mean, check_sum
from merveil.protocols.dp.accountant import Release, epsilon
from merveil.protocols.dp.discrete import TAILS, Mechanism, table_bits
from merveil.protocols.dp.sampling import KINDS
from merveil.protocols.errors import AbortCode, Aborted, LocalError, RemoteError
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.session import Outcome

LEDGER = "dp-ledger.json"
MOST_ROUNDS = 1 << 20
_TABLE = 1 << 30  # entries times bits of a noise table: what the widest honest mechanism needs, and no more
_VARIANCE = re.compile(r"[1-9][0-9]{0,20}(/[1-9][0-9]{0,20})?")  # a fraction may not write out an exponent
_TYPES = {
    "kind": str,
    "dim": int,
    "cohort": int,
    "honest": int,
    "norm_clip": float,
    "steps": int,
    "variance": str,
    "central": bool,
    "tail": int,
}


# The mechanism of a task


def encode(mechanism: Mechanism) -> str:
    """Canonical JSON: the field `mechanism` of a task."""
    value = {**to_json(mechanism), "norm_clip": float(mechanism.norm_clip)}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode(text: str) -> Mechanism:
    """Inverse of `encode`. RemoteError (MALFORMED_FRAME, culprit 0) for anything that it does not write."""
    try:
        value: Any = json.loads(text)
        if not isinstance(value, dict) or {name: type(v) for name, v in value.items()} != _TYPES:
            raise ValueError("other fields or types than a mechanism has")
        if value["kind"] not in KINDS or not _VARIANCE.fullmatch(value["variance"]):
            raise ValueError("noise of an unknown kind or variance")
        if not (0 < value["dim"] < 1 << 31 and 0 < value["steps"] < 1 << 40 and value["tail"] in TAILS):
            raise ValueError("a size out of range")
        found = from_json(value)
        if encode(found) != text:
            raise ValueError("not the canonical form")
        if found.bound * table_bits(found.tail) > _TABLE:
            raise ValueError("the noise is too wide to be sampled")
        return found
    except (ValueError, RecursionError, LocalError) as error:
        why = f"the task's mechanism is malformed: {error}"
        raise RemoteError(why, (0,), AbortCode.MALFORMED_FRAME) from error


def rotation(task: Task) -> bytes:
    """The public bytes of a round's rotation, as in process: from the model's hash."""
    return hash_fields("dp/1/rotation", bytes.fromhex(task.model_hash))


def read_mean(task: Task, outcome: Outcome) -> Mean:
    """The server's mean over the survivors of a task with a mechanism. Aborted: IMPLAUSIBLE_SUM."""
    mechanism, count = decode(task.mechanism), len(outcome.survivors)
    check_sum(task.params(), outcome.codes, count)
    return Mean(mechanism.decode(outcome.codes, count, rotation(task)), count)


# What a site judges


def judge(member: Member, task: Task, work: Work) -> Mechanism | None:
    """The mechanism that this site would carry out, None for a task without one that its policy allows.

    Aborted PARAMS_BELOW_FLOOR: the noise, or its absence, is not within this party's policy, or not what the
    options say. RemoteError: no mechanism. What it costs is `afford`'s and `pay`'s to say.
    """
    mechanism = decode(task.mechanism) if task.mechanism else None
    wanted = work.kind == "train" and work.options.noisy_sums
    if wanted is not (mechanism is not None):
        has = "a mechanism" if mechanism is not None else "no mechanism"
        raise _below(f"the options of this {work.kind} have dp {work.options.dp!r}, the task has {has}")
    member.policy.check_mechanism(task.params(), mechanism, len(member.roster))
    if mechanism is None:
        return None
    try:
        dp_options.check_scheme("distributed", task.scheme)
    except InputError as error:
        raise _below(str(error)) from error
    if work.options.delta > member.policy.dp_delta:
        raise _below(f"delta {work.options.delta:g} exceeds the policy's {member.policy.dp_delta:g}")
    return mechanism


def _below(why: str) -> Aborted:
    return Aborted(AbortCode.PARAMS_BELOW_FLOOR, why, (0,))


# What a site pays


class UploadBudget(Budget):
    """A site's budget. `last` names the upload that was charged last: it is not charged a second time, since
    the site was killed between the charge and its frame, and the party's ledger lets one frame leave."""

    def __init__(self, path: Path, federation: str, target: float, delta: float) -> None:
        self.last = ""
        new = not _present(path)
        super().__init__(path, federation, target, delta)
        if new:
            self._write([])

    def pay(self, release: Release, upload: str) -> None:
        """Charge one upload, once. BudgetSpent, OSError: it is not paid and may not leave."""
        if upload == self.last:
            return
        before, self.last = self.last, upload
        try:
            self.charge(release)
        except BaseException:
            self.last = before
            raise

    def check(self, release: Release, upload: str = "") -> None:
        if not upload or upload != self.last:
            super().check(release)

    def _more(self) -> dict[str, Any]:
        return {"last": self.last}

    def _take_more(self, value: dict[str, Any]) -> None:
        self.last = str(value["last"])


def _present(path: Path) -> bool:
    """Whether there is a ledger; LocalError where there was one, since its lock stays beside it."""
    if not path.exists() and path.with_name(path.name + ".lock").exists():
        raise LocalError(
            f"the privacy ledger {path} is gone: what was spent is not known any more; bring it back, or, if "
            f"no upload was ever paid from here, remove {path.name}.lock"
        )
    return path.exists()


@contextmanager
def budget(member: Member) -> Iterator[UploadBudget]:
    """This site's budget under its lock. LocalError: in use, gone, damaged, or of another federation."""
    policy, name = member.policy, member.roster.federation.hex()
    with UploadBudget(member.home / LEDGER, name, policy.dp_epsilon, policy.dp_delta) as found:
        yield found


def afford(member: Member, task: Task, mechanism: Mechanism) -> None:
    """BudgetSpent where this upload would exceed the policy's dp_epsilon; nothing is written."""
    with budget(member) as found:
        found.check(mechanism.release(), _upload(member, task))


def pay(member: Member, task: Task, mechanism: Mechanism) -> None:
    """Charge this upload; it is on disk when this returns. BudgetSpent: it may not leave."""
    with budget(member) as found:
        found.pay(mechanism.release(), _upload(member, task))


def _upload(member: Member, task: Task) -> str:
    """One attempt at one round under one roster: the party's ledger lets one vector of it leave."""
    return hash_fields("deploy/1/upload", member.roster.hash, task.encode()).hex()


# What a site tells its own people


def spent(member: Member) -> dict[str, Any] | None:
    """The figures of this site's budget for its own log and JSON; None where its policy has none."""
    policy = member.policy
    if not policy.dp_epsilon:
        return None
    found = {"epsilon": 0.0, "uploads": 0}
    if _present(member.home / LEDGER):
        with budget(member) as own:
            found = {"epsilon": own.epsilon(), "uploads": own.uploads}
    figures = {"target_epsilon": policy.dp_epsilon, "delta": policy.dp_delta}
    return {"unit": "client", **found, **figures, "norm_clip": policy.dp_norm_clip}


def rounds_left(member: Member, mechanism: Mechanism) -> int:
    """How many more uploads of this mechanism this site's budget allows, up to MOST_ROUNDS."""
    before: tuple[tuple[Release, int], ...] = ()
    if _present(member.home / LEDGER):
        with budget(member) as own:
            before = own.spent
    policy, once = member.policy, mechanism.release()

    def fits(count: int) -> bool:
        return epsilon([*before, (once, count)], policy.dp_delta) <= policy.dp_epsilon

    low, high = 0, 1
    while high <= MOST_ROUNDS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return min(low, MOST_ROUNDS)
