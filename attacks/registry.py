"""id -> attack. An attack is one file `a<number>_<name>.py` with a tuple `ATTACKS`; nothing else lists it."""

import pkgutil
import re
from functools import cache
from importlib import import_module

import merveil.attacks
from merveil.attacks.base import Attack
from merveil.mer.errors import InputError

PENDING: dict[str, str] = {}  # lines of the catalogue whose scheme is not in the registry yet
LAST = 34  # the catalogue goes from A01 to A34
_FILE = re.compile(r"a\d\d_\w+")


@cache
def attacks() -> dict[str, Attack]:
    """All attacks by id, in the order of their ids. ValueError where two files claim one id."""
    found: dict[str, Attack] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(merveil.attacks.__path__)):
        if not _FILE.fullmatch(module):
            continue
        for attack in import_module(f"merveil.attacks.{module}").ATTACKS:
            if attack.id in found:
                raise ValueError(f"two attacks are called {attack.id}")
            found[attack.id] = attack
    return found


def catalogue() -> dict[str, tuple[str, ...]]:
    """Each line of the catalogue, A01 to A34 -> ids of the attacks built for it; none where pending."""
    found = {f"A{n:02d}": () for n in range(1, LAST + 1)}
    for name in attacks():
        line = name.split("-")[0]
        found[line] = (*found.get(line, ()), name)
    return found


def get(name: str) -> Attack:
    """The attack of an id, upper or lower case; InputError lists the known ones."""
    known = {k.lower(): v for k, v in attacks().items()}
    if name.lower() not in known:
        raise InputError(f"there is no attack {name!r}; there are: {', '.join(attacks())}")
    return known[name.lower()]
