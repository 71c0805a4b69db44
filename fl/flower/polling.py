"""An exchange with nodes that looks for replies often: the engine's own loop sleeps three seconds at a time.

A round behind the mod has as many exchanges as its scheme has phases, so what the server sleeps in each
is most of what the round costs beside an unsecured one.
"""

import logging
import time
from collections.abc import Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

FIRST, LONGEST = 0.05, 0.5  # seconds between looks: after a reply, and at most
_log = logging.getLogger("merveil.flower")


def ask(grid: Grid, messages: Iterable[Message], timeout: float | None) -> Iterator[Message]:
    """Send messages; yield replies as they come, until each has one or `timeout` seconds are over.

    None: no limit, as in `Grid.send_and_receive`. A message that the engine did not take has no reply, and
    is said in the log.
    """
    given = list(grid.push_messages(messages))
    waiting = {name for name in given if name}
    if len(waiting) < len(given):
        _log.warning("the engine did not take %d of %d messages", len(given) - len(waiting), len(given))
    end = None if timeout is None else time.monotonic() + timeout
    pause = FIRST
    while waiting:
        found = list(grid.pull_messages(waiting))
        for reply in found:
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if not waiting:
            return
        pause = FIRST if found else min(1.5 * pause, LONGEST)
        if end is not None:
            left = end - time.monotonic()
            if left <= 0:
                return
            pause = min(pause, left)
        time.sleep(pause)
