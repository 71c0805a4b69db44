"""attack id -> the weakened `lattice` it must win on."""

from collections.abc import Callable

from merveil.attacks.protocol import Build


def _reusing() -> Build:
    from merveil.audits.broken import lattice_weak as weak

    return Build("lattice", "lattice, one key for all rounds", client=weak.client_of(weak.ReusingClient))


def _constant() -> Build:
    from merveil.audits.broken import lattice_weak as weak

    client = weak.client_of(weak.ConstantClient)
    return Build("lattice", "lattice, one key and one set of polynomials", client=client)


def _eager() -> Build:
    from merveil.audits.broken import lattice_weak as weak

    return Build("lattice", "lattice, members answer any list", client=weak.client_of(weak.EagerClient))


def _one_member() -> Build:
    from merveil.audits.broken import lattice_weak as weak

    client = weak.client_of(weak.LatticeClient)
    return Build("lattice", "lattice, a quorum of one", params=weak.INSECURE_ONE_MEMBER, client=client)


def _sound() -> Build:
    return Build("lattice", "lattice, as it is")


BUILDS: dict[str, Callable[[], Build]] = {
    "A09-lattice": _one_member,
    "A18": _constant,
    "A19": _eager,
    "A19-rounds": _reusing,
    "A33-lattice": _sound,
}
