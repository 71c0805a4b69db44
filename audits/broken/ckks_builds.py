"""attack id -> the weakened `ckks` it must win on."""

from collections.abc import Callable

from merveil.attacks.protocol import Build
from merveil.protocols.params import Params
from merveil.protocols.registry import get

_SPREAD = 1000  # members, of whom twelve take part: Lagrange weights are then of general position


def _few_of_many(_: int, dim: int, *, bits: int) -> Params:
    return get("ckks").params(12, dim, bits=bits)


def _raw() -> Build:
    from merveil.audits.broken.ckks_weak import RawFloats

    return Build("ckks", "TenSEAL, one key for all, raw floats published", aggregator=RawFloats)


def _shared() -> Build:
    from merveil.audits.broken import ckks_weak as weak

    client = weak.client_of(weak.CkksClient)
    return Build("ckks", "ckks, every client holds the key", params=weak.INSECURE_SHARED, client=client)


def _trusting() -> Build:
    from merveil.audits.broken import ckks_weak as weak

    return Build("ckks", "ckks, whatever TenSEAL loads is taken", server=weak.trusting_server)


def _blind() -> Build:
    from merveil.audits.broken import ckks_weak as weak

    return Build("ckks", "ckks, decryptors open what they are sent", client=weak.client_of(weak.BlindClient))


def _forgetful() -> Build:
    from merveil.audits.broken import ckks_weak as weak

    client = weak.client_of(weak.ForgetfulClient)
    return Build("ckks", "ckks, no ledger", cohort=_SPREAD, params=_few_of_many, client=client)


def _sound() -> Build:
    return Build("ckks", "ckks, as it is")


BUILDS: dict[str, Callable[[], Build]] = {
    "A14": _raw,
    "A15": _shared,
    "A16": _trusting,
    "A31": _sound,
    "A31-server": _blind,
    "A34": _forgetful,
}
