"""Positive control of A30-site: a site that adds the noise it is told to, judges nothing and pays nothing."""

from dataclasses import replace
from typing import Any

from merveil.fl.deploy import private
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.site import Asleep, Site
from merveil.fl.deploy.step import Step, begin, go_on
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Work
from merveil.protocols.codec import Codes


class OpenSite(Site):
    """Takes every mechanism, or none, whatever was hashed; its policy has no figures, its disk no charge."""

    def __init__(self, member: Member, *given: Any) -> None:
        free = replace(member.policy, dp_epsilon=0.0, dp_delta=0.0, dp_norm_clip=0.0)
        super().__init__(replace(member, policy=free), *given)

    def _begin(self, task: Task, state: Asleep) -> Step:
        return self._keep(state, 0, begin(self._member, _bare(task), self._vector(task, state, 0)))

    def _go_on(self, task: Task, state: Asleep, exchange: int, inbound: list[bytes]) -> Step:
        codes = self._vector(task, state, exchange)
        return self._keep(state, exchange, go_on(self._member, _bare(task), state.snapshot, inbound, codes))

    def _vector(self, task: Task, state: Asleep, exchange: int) -> Codes | None:
        if not self._due(task, exchange):
            return None
        work = Work.decode(state.head, state.payload)
        fitting = replace(task, config_hash=work.hashes(task.mechanism)[1])
        if not task.mechanism:
            return self._trainer.codes(fitting, work, self._settings.max_cut)
        mechanism = private.decode(task.mechanism)
        return self._trainer.noisy_codes(fitting, work, mechanism, private.rotation(task))


def _bare(task: Task) -> Task:
    """The same round for a session that asks no question about noise."""
    return replace(task, mechanism="")
