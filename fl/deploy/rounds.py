"""A round over the hub: exchanges with deadlines, attempts while no answer has left, a report of each.

A site that does not answer in time is a dropout of the exchange. One that lost its connection has
`grace_seconds` to come back; one that was not there when the exchange began is not waited for. What has
arrived is read before anybody is given up, so a busy server loses no answer that came in time.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from merveil.fl.deploy.account import Account
from merveil.fl.deploy.channel import Kind, Message, pack, pack_list, unpack_list
from merveil.fl.deploy.config import ServerSettings
from merveil.fl.deploy.desk import Notes, RoundDesk
from merveil.fl.deploy.hub import Hub
from merveil.fl.deploy.private import read_mean
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Work
from merveil.fl.dp_ledger import BudgetSpent
from merveil.fl.runs import RunLog
from merveil.protocols.codec import Codec, Mean
from merveil.protocols.errors import Aborted, RemoteError
from merveil.protocols.identity import Roster
from merveil.protocols.session import Outcome

_REPORT = 300  # characters of a site's own words that are kept


@dataclass(frozen=True)
class Done:
    """A round with a sum. names: of the survivors; excluded: name -> code of who broke the protocol."""

    mean: Mean
    outcome: Outcome
    names: tuple[str, ...]
    excluded: dict[str, str]
    notes: Notes
    seconds: float
    attempt: int


@dataclass
class Progress:
    """What `merveil server --status` shows of the round under way."""

    round: int = 0
    attempt: int = 0
    phase: str = ""
    waiting: list[str] = field(default_factory=list)


class Rounds:
    """told: called whenever the progress changes. account: of a training with noise, asked before an attempt
    and charged before the vectors are asked for. spent: indices of sites that said their budget is spent."""

    def __init__(
        self,
        hub: Hub,
        roster: Roster,
        settings: ServerSettings,
        log: RunLog,
        told: Callable[[Progress], None],
        account: Account | None = None,
    ) -> None:
        self._hub, self._roster, self._settings = hub, roster, settings
        self._log, self._told, self._account = log, told, account
        self.spent: set[int] = set()

    async def run(self, make: Callable[[int], Task], work: Work) -> Done:
        """One round. make: attempt -> task. Aborted where there is no sum; `released` says whether answers
        had left. Clients that provably broke the protocol are named in the log. BudgetSpent: the server's
        account, or those of too many sites, allow no further upload."""
        attempt = 1
        while True:
            task = make(attempt)
            self._afford(task)
            await self._gather(task)
            try:
                return await self._attempt(task, work)
            except Aborted as error:
                culprits = ", ".join(repr(self._roster.member(i).name) for i in sorted(error.culprits) if i)
                named = f"; broke the protocol: {culprits}" if culprits else ""
                self._log.warn(f"round {task.round}, attempt {attempt}: {error}{named}")
                self._afford(task)
                if error.released or attempt >= self._settings.attempts:
                    raise
            attempt += 1

    def _afford(self, task: Task) -> None:
        if self._account is None:
            return
        self._account.afford()
        left, need = len(self._roster) - len(self.spent), task.params().threshold
        if left < need:
            names = ", ".join(repr(self._hub.name(i)) for i in sorted(self.spent))
            raise BudgetSpent(f"{names} spent their own budgets: {left} sites are left, {need} are needed")

    async def _gather(self, task: Task) -> None:
        """Wait until the threshold is met, then a little for the others.

        With too few after `wait_seconds` the round goes ahead: it ends by BELOW_THRESHOLD and names who is
        missing.
        """
        hub, settings, need = self._hub, self._settings, task.params().threshold
        begun = time.monotonic()
        while len(hub.peers) < len(self._roster):
            enough = len(hub.peers) >= need
            left = begun + (settings.gather_seconds if enough else settings.wait_seconds) - time.monotonic()
            if left <= 0:
                return
            missing = [self._hub.name(i) for i in range(1, len(self._roster) + 1) if i not in hub.peers]
            self._told(Progress(task.round, task.attempt, "GATHER", missing))
            hub.changed.clear()
            try:
                await asyncio.wait_for(hub.changed.wait(), left)
            except TimeoutError:
                continue

    async def _attempt(self, task: Task, work: Work) -> Done:
        begun, notes = time.monotonic(), Notes()
        desk = RoundDesk(task, self._roster, None, notes)
        head = {"task": task.encode().decode(), "tag": _tag(task, 0)}
        invitation = pack(Kind.TASK, {**head, "work": work.head()}, work.payload)
        messages = dict.fromkeys(range(1, len(self._roster) + 1), invitation)
        number = 0
        try:
            while not desk.done:
                await self._exchange(desk, task, number, messages)
                number += 1
                messages = self._next(desk, task, number)
        finally:
            self._hub.close_exchange()
        outcome = desk.result()
        if task.mechanism:
            mean = read_mean(task, outcome)
        else:
            mean = Codec(desk.params).decode(outcome.codes, len(outcome.survivors))
        names = tuple(self._roster.member(i).name for i in outcome.survivors)
        excluded = {self._roster.member(i).name: code.name for i, code in outcome.excluded.items()}
        for name, code in excluded.items():
            self._log.warn(f"round {task.round}: {name!r} broke the protocol ({code})")
        return Done(mean, outcome, names, excluded, notes, time.monotonic() - begun, task.attempt)

    def _next(self, desk: RoundDesk, task: Task, number: int) -> dict[int, bytes]:
        frames: dict[int, list[bytes]] = {}
        for index, data in desk.outgoing():
            frames.setdefault(index, []).append(data)
        head = {"task": task.encode().decode(), "tag": _tag(task, number), "exchange": number}
        return {i: pack(Kind.FRAMES, head, pack_list(found)) for i, found in frames.items()}

    async def _exchange(self, desk: RoundDesk, task: Task, number: int, messages: dict[int, bytes]) -> None:
        """Send, and take replies until everybody answered or the time is up; then close the phase."""
        settings, hub, phase = self._settings, self._hub, desk.phase.value
        seconds = settings.train_seconds if phase == task.vector_phase else settings.phase_seconds
        if self._account is not None and phase == task.vector_phase:
            self._account.charge()
        deadline, tag = time.monotonic() + seconds, _tag(task, number)
        waiting = {i for i in messages if number or i in hub.peers}
        gone: dict[int, float] = {}
        await hub.open_exchange(messages)
        while waiting:
            for item in self._arrived():
                self._answer(desk, tag, waiting, item)
            waiting -= self._lost(waiting, gone)
            waited = [hub.name(i) for i in sorted(waiting)]
            self._told(Progress(task.round, task.attempt, phase, waited))
            left = deadline - time.monotonic()
            if left <= 0 or not waiting:
                break
            item = await self._reply(min(0.1 if gone else 0.5, left))
            if item is not None:
                self._answer(desk, tag, waiting, item)
        hub.close_exchange()
        desk.close()

    def _arrived(self) -> Iterator[tuple[int, Message]]:
        """What lies in the inbox now; nothing joins it meanwhile, since nothing is awaited."""
        for _ in range(self._hub.inbox.qsize()):
            yield self._hub.inbox.get_nowait()

    def _answer(self, desk: RoundDesk, tag: str, waiting: set[int], item: tuple[int, Message]) -> None:
        """A reply to the exchange that is open; one to any other changes nothing."""
        if item[1].head.get("tag") == tag:
            waiting.discard(item[0])
            self._hub.answered(item[0])
            self._take(desk, *item)

    def _lost(self, waiting: set[int], gone: dict[int, float]) -> set[int]:
        """Who has been away for longer than the grace. gone: since when, kept from call to call."""
        now = time.monotonic()
        for i in waiting:
            if i in self._hub.peers:
                gone.pop(i, None)
            else:
                gone.setdefault(i, now)
        return {i for i, since in gone.items() if now >= since + self._settings.grace_seconds}

    async def _reply(self, seconds: float) -> tuple[int, Message] | None:
        try:
            return await asyncio.wait_for(self._hub.inbox.get(), seconds)
        except TimeoutError:
            return None

    def _take(self, desk: RoundDesk, index: int, message: Message) -> None:
        if "code" in message.head:
            why = f"{message.head['code']}: {message.head.get('why', '')}"[:_REPORT]
            desk.notes.reports[index] = why
            self._log.warn(f"{self._hub.name(index)!r} reports {why}")
        (self.spent.add if message.head.get("spent") is True else self.spent.discard)(index)
        try:
            frames = unpack_list(message.payload)
        except RemoteError as error:
            self._log.warn(f"{self._hub.name(index)!r}: {error}")
            return
        before = len(desk.notes.refused)
        desk.take(index, frames)
        for sender, code in desk.notes.refused[before:]:
            name = code.name if code else "MALFORMED_FRAME"
            self._log.warn(f"a frame of {self._hub.name(sender)!r} was refused: {name}")


def _tag(task: Task, exchange: int) -> str:
    return f"{task.round}.{task.attempt}.{exchange}"
