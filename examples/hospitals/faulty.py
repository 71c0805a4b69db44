"""`merveil site` with one fault at an exact moment: for examples/hospitals/run.py, never for use.

    python faulty.py SITE/federation.toml killed@3.1.2     the process dies at that exchange, unanswered
    python faulty.py SITE/federation.toml doubled@4.1.0    it signs two different adverts
    python faulty.py SITE/federation.toml last@4.1.0       it answers once the server waits for nobody else:
                                                           the phase stays open for others' faults
    python faulty.py SITE/federation.toml held@5.1.1       it answers nothing until the connection breaks

A moment is ROUND.ATTEMPT.EXCHANGE as in the server's log; exchanges count from 0. `last` reads the server's
status.json, which a real site does not see. No fault waits for seconds, so a busy machine changes nothing.
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
from merveil.fl.runs import RunLog
from merveil.mer.data.archive import load_archive
from merveil.protocols.frame import Frame

STATUS = Path("server") / "run" / "status.json"  # in the folder that holds all parties


class Faulty(Site):
    """fault, moment: what happens, and at which tag."""

    fault, moment = "", ""

    def _reply(self, link: Any, message: Any, done: Any) -> None:
        if message.text("tag") == self.moment:
            if self.fault == "killed":
                os._exit(9)
            if self.fault == "held":
                link.receive()  # OSError when the server is gone: then the site dials again
            elif self.fault == "last":
                while json.loads(STATUS.read_text())["waiting_for"] != [self._member.identity.name]:
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
    member = Member.load(settings.home)
    trainer = Trainer(load_archive(config.parent / settings.data), member.identity.name)
    Faulty(member, settings, trainer, RunLog()).run()


if __name__ == "__main__":
    main()
