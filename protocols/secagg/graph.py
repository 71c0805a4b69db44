"""Degree and threshold of the sparse graph, and the graph itself.

Degree k (even) and threshold t follow Google's parameter finder for Bell et al. 2020 (docs/secagg.md):
gamma*n corrupt and delta*n dropped clients, failure 2^-40 for correctness and 2^-40 for security, the latter
split over two events; the threshold excludes split views, 2t > k + c_k.
The graph is a ring in the pseudorandom order of the roster's beacon, each client joined to the k/2 nearest on
either side: a public function that neither server nor clients can steer.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

from merveil.protocols.cohort import shuffled

SECURITY = 40
CORRECTNESS = 40
SMALL = 20  # below, the complete graph is used


@dataclass(frozen=True, slots=True)
class Degree:
    """k neighbours, threshold t, c of a neighbourhood corrupt at most."""

    neighbours: int
    threshold: int
    corrupt: int


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_hypergeometric(n: int, marked: int, draws: int, x: int) -> float:
    if x < max(0, draws - (n - marked)) or x > min(draws, marked):
        return -math.inf
    return _log_choose(marked, x) + _log_choose(n - marked, draws - x) - _log_choose(n, draws)


def _tail(n: int, marked: int, draws: int, low: int, high: int) -> float:
    return math.fsum(math.exp(_log_hypergeometric(n, marked, draws, x)) for x in range(low, high + 1))


def corrupt_bound(n: int, corrupt: int, k: int) -> int:
    """c_k: least x such that no neighbourhood holds more than x corrupt, except with 2^-(40+1)."""
    limit = 2.0 ** -(SECURITY + 1) / n
    tail, x = 0.0, min(k, corrupt)
    while x > 0 and tail + math.exp(_log_hypergeometric(n, corrupt, k, x)) <= limit:
        tail += math.exp(_log_hypergeometric(n, corrupt, k, x))
        x -= 1
    return x


def answer_bound(n: int, dropped: int, k: int, correctness: int = CORRECTNESS) -> int:
    """Largest t that every neighbourhood's survivors reach, except with 2^-correctness."""
    limit = 2.0**-correctness / n
    tail, t = 0.0, 0
    while t <= k and tail + math.exp(_log_hypergeometric(n, n - dropped, k, t)) <= limit:
        tail += math.exp(_log_hypergeometric(n, n - dropped, k, t))
        t += 1
    return t


def stays_connected(n: int, corrupt: int, dropped: int, k: int) -> bool:
    """Whether honest survivors form one component, except with 2^-(40+1) over random dropouts."""
    bad = corrupt + dropped
    if k > bad:
        return True
    if n - k - 1 <= 0:
        return True
    log_probability = (
        math.log(n * (n - k - 1) / 2)
        + math.lgamma(bad + 1)
        + math.lgamma(n - k + 1)
        - math.lgamma(n + 1)
        - math.lgamma(bad - k + 1)
    )
    return log_probability < -(SECURITY + 1) * math.log(2)


@lru_cache(maxsize=256)
def find_degree(
    n: int, gamma: float = 0.1, delta: float = 0.1, correctness: int = CORRECTNESS
) -> Degree | None:
    """Smallest even k < n - 1 with a feasible t, or None where only the complete graph is left."""
    if gamma + 2 * delta > 0.9:
        return None
    corrupt, dropped = math.floor(gamma * n), math.floor(delta * n)
    for k in range(2, n - 1, 2):
        if not stays_connected(n, corrupt, dropped, k):
            continue
        c = corrupt_bound(n, corrupt, k)
        t = (k + c) // 2 + 1  # the least with 2t > k + c
        if t <= answer_bound(n, dropped, k, correctness):
            return Degree(k, t, c)
    return None


class Graph:
    """Who shares with whom. Complete (k = 0): everybody, and a client holds a share of its own seeds too.

    Sparse: the k/2 nearest on either side of a ring; a client holds none of its own.
    """

    def __init__(self, cohort: tuple[int, ...], order: tuple[int, ...], k: int) -> None:
        self._cohort = cohort
        self._position = {i: p for p, i in enumerate(cohort)}
        self._order = order
        self._place = {i: p for p, i in enumerate(order)}
        self._half = k // 2
        self._around: dict[int, tuple[int, ...]] = {}

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Ascending, without the client itself."""
        found = self._around.get(index)
        if found is None:
            found = self._around[index] = self._find(index)
        return found

    def _find(self, index: int) -> tuple[int, ...]:
        if self._half == 0:
            p = self._position[index]
            return self._cohort[:p] + self._cohort[p + 1 :]
        n, p = len(self._order), self._place[index]
        return tuple(sorted(self._order[(p + s) % n] for s in range(-self._half, self._half + 1) if s))

    def holders(self, dealer: int) -> tuple[int, ...]:
        """Who holds shares of a dealer's seeds, ascending."""
        return self._cohort if self._half == 0 else self.neighbours(dealer)

    def place(self, dealer: int, holder: int) -> int:
        """The holder's place j among the dealer's holders, from 0; its Shamir point is j + 1."""
        return self._position[holder] if self._half == 0 else bisect_left(self.neighbours(dealer), holder)


@lru_cache(maxsize=4)
def ring(beacon: bytes, roster_hash: bytes, round_: int, cohort: tuple[int, ...], k: int) -> Graph:
    """The graph of a round: k neighbours on a permuted ring, or complete for k = 0."""
    order = shuffled(beacon, roster_hash, "ring", round_, cohort) if k else cohort
    return Graph(cohort, order, k)
