"""attack id -> the weakened construction it must win on. Nothing here has a name that any option accepts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from merveil.attacks.protocol import Build, sound
from merveil.audits.broken import careless, lists, masks, sessions
from merveil.protocols.params import Params


def _half(cohort: int, dim: int, *, bits: int) -> Params:
    """A threshold of half the cohort: two groups can be told two stories."""
    return Params("secagg", cohort, dim, bits, threshold=cohort // 2)


def _weak(label: str, **changes: Any) -> Build:
    return replace(Build("secagg", f"secagg, {label}"), **changes)


BUILDS: dict[str, Callable[[], Build]] = {
    "A01": lambda: _weak("mask seeds folded to 16 bits", client=sessions.clients_of(masks.FoldedSeed)),
    "A02": lambda: _weak(
        "masks from MT19937", client=sessions.clients_of(masks.Twister), expand=masks.twister_range
    ),
    "A03": lambda: _weak(
        "masks without round or session, no ledger",
        client=sessions.clients_of(masks.StaticMask),
        ledger=masks.NoRules,
    ),
    "A04": lambda: _weak("threshold of half the cohort", params=_half, client=sessions.unchecked),
    "A05": lambda: _weak("survivor lists unchecked", client=sessions.clients_of(lists.UnsignedLists)),
    "A07": lambda: _weak("share keys from ephemeral keys alone", ledger=masks.NoChains),
    "A08": lambda: _weak("no policy", client=sessions.unchecked),
    "A09": lambda: _weak("sharing coefficients of 10 bits", rng=masks.LowEntropy),
    "A10": lambda: _weak("snapshots without a serial", ledger=masks.NoSerial),
    "A11": lambda: _weak("shares without commitments", server=careless.bare_server),
    "A12": lambda: _weak(
        "a modulus of 16 bits", aggregator=careless.NarrowAggregator, client=sessions.unchecked
    ),
    "A13": lambda: _weak("a codec that checks nothing", aggregator=careless.Trusting),
    "A32": lambda: _weak("no ledger", client=careless.forgetful),
    "A33": lambda: _weak("shares sealed under static keys", client=sessions.clients_of(careless.StaticBoxes)),
    "A20-time": lambda: sound("plain"),  # a leak of every scheme, shown where nothing else is hidden
    "A06-neighbours": lambda: replace(
        sound("secagg+"),
        label="secagg+, a graph of the server's making: all neighbours collude",
        surrounded=True,
    ),
    "A06": lambda: _weak("open enrolment", enrol=sessions.open_enrolment),
}
