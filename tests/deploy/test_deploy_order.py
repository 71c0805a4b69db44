"""Frames in another order, twice, or late: the network may do all of it, and no sum changes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merveil.fl.deploy.channel import Kind, Message, pack, pack_list, unpack_list
from merveil.fl.deploy.site import Link, Site
from merveil.protocols.registry import get

SCHEMES = ("secagg", "secagg+", "lattice")


class Turned(Site):
    """Hears the frames of an exchange backwards, and sends its own backwards."""

    def _heard(self, message: Message) -> Any:
        parts = unpack_list(message.payload)
        return super()._heard(replace(message, payload=pack_list(parts[::-1])))

    def _reply(self, link: Link, message: Message, done: Any) -> None:
        super()._reply(link, message, replace(done, frames=done.frames[::-1]))


class Twice(Site):
    """Every message of the server arrives twice, and so does every answer."""

    def _invited(self, message: Message) -> Any:
        first = super()._invited(message)
        assert super()._invited(message).frames == first.frames, "a repeat gets the same bytes"
        return first

    def _heard(self, message: Message) -> Any:
        first = super()._heard(message)
        assert super()._heard(message).frames == first.frames, "a repeat gets the same bytes"
        return first

    def _reply(self, link: Link, message: Message, done: Any) -> None:
        super()._reply(link, message, done)
        super()._reply(link, message, done)


class Delayed(Site):
    """Before every answer the one before it arrives once more: under its own tag, and under the new one."""

    before: tuple[str, Any] | None = None

    def _reply(self, link: Link, message: Message, done: Any) -> None:
        tag = message.text("tag")
        if self.before is not None:
            link.send(pack(Kind.REPLY, {"tag": self.before[0]}, pack_list(self.before[1].frames)))
            done = replace(done, frames=(*self.before[1].frames, *done.frames))
        self.before = tag, done
        super()._reply(link, message, done)


class InTurn(Site):
    """Answers when its turn has come. order: of the names in an exchange. seen: what the server waits for."""

    order: Callable[[int], list[str]] = staticmethod(lambda exchange: [])  # type: ignore[assignment]
    phases: tuple[str, ...] = ()
    world: Any = None

    def _reply(self, link: Link, message: Message, done: Any) -> None:
        exchange = int(message.text("tag").rpartition(".")[2])
        names = self.order(exchange)
        left = names[names.index(self._member.identity.name) :]
        self.world.until(lambda: self._seen() == (self.phases[exchange], sorted(left)))
        super()._reply(link, message, done)

    def _seen(self) -> tuple[str, list[str]]:
        progress = self.world.server._progress
        return progress.phase, progress.waiting


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", [Turned, Twice, Delayed])
def test_frames_backwards_twice_or_late_change_no_sum(world: Any, kind: type[Site], scheme: str) -> None:
    found = world(rounds=2, scheme=scheme, class_weights=False)
    found.start_server()
    for i in range(5):
        found.start_site(found.site(i, kind))
    found.finish()
    assert [(line["survivors"], line["excluded"]) for line in found.lines()] == [(5, {}), (5, {})]
    assert_the_sum_is_right(found)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sites_that_answer_in_any_order_give_the_same_sum(world: Any, scheme: str) -> None:
    found = world(rounds=1, scheme=scheme, class_weights=False)
    names = [home.name for home in found.homes]
    found.start_server()
    for i in range(5):
        site = found.site(i, InTurn)
        site.world, site.phases = found, tuple(phase.value for phase in get(scheme).phases)
        site.order = lambda exchange: names[exchange:][::-1] + names[:exchange]  # another one each time
        found.start_site(site)
    found.finish()
    (line,) = found.lines()
    assert (line["survivors"], line["excluded"]) == (5, {})
    assert_the_sum_is_right(found)


def assert_the_sum_is_right(world: Any) -> None:
    """As in process, up to the last bit of a division; a frame too many or too few is whole steps away."""
    step = world.settings.options.update_clip / (1 << (world.settings.options.bits - 1))
    np.testing.assert_allclose(world.model(), world.in_process(), atol=0.05 * step, rtol=0)
