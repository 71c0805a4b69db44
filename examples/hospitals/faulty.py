"""`merveil site` with one fault at an exact moment: for examples/hospitals/run.py, never for use.

    python faulty.py SITE/federation.toml FAULT@MOMENT STATUS

    killed   the process dies at that exchange, unanswered
    doubled  it signs two different adverts
    last     it answers once the server waits for nobody else: the phase stays open for others' faults
    held     it answers nothing until the connection breaks

A moment is ROUND.ATTEMPT.EXCHANGE as in the server's log; exchanges count from 0. STATUS is the
server's status.json, which a real site does not see. No fault waits for seconds, however busy the machine.
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from merveil.fl.deploy.config import read_site
from merveil.fl.deploy.member import Member
from merveil.fl.deploy.site import Site
from merveil.fl.deploy.task import Task
from merveil.fl.deploy.work import Trainer
from merveil.fl.gate import FILE, ModelGate
from merveil.fl.runs import RunLog
from merveil.mer.data.archive import load_archive
from merveil.protocols.frame import Frame


class Faulty(Site):
    """fault, moment: what happens, and at which tag. status: the server's status.json."""

    fault, moment, status = "", "", Path()

    def _reply(self, link: Any, message: Any, done: Any) -> None:
        if message.text("tag") == self.moment:
            if self.fault == "killed":
                os._exit(9)
            if self.fault == "held":
                link.receive()  # OSError when the server is gone: then the site dials again
            elif self.fault == "last":
                while json.loads(self.status.read_text())["waiting_for"] != [self._member.identity.name]:
                    time.sleep(0.05)
            else:
                done = replace(done, frames=(*done.frames, self._second(message, done.frames[0])))
        super()._reply(link, message, done)

    def _second(self, message: Any, first: bytes) -> bytes:
        """Another advert for the same round, under a signature that holds."""
        member, task = self._member, Task.decode(message.text("task").encode())
        frame = Frame.decode(first, member.index, 1 << 20)
        other = replace(frame, body=frame.body[:-1] + bytes((frame.body[-1] ^ 1,)))
        return other.signed(member.identity.sign_key, task.context(member.roster).digest).encode()


def main() -> None:
    config = Path(sys.argv[1])
    settings = read_site(config)
    Faulty.fault, _, Faulty.moment = sys.argv[2].partition("@")
    Faulty.status = Path(sys.argv[3])
    member = Member.load(settings.home)
    gate = ModelGate(settings.home / FILE, settings.architecture)
    trainer = Trainer(load_archive(config.parent / settings.data), member.identity.name, gate)
    Faulty(member, settings, trainer, RunLog()).run()


if __name__ == "__main__":
    main()
