"""Who the clients are: subjects, sites, or K groups of subjects that stand for sites.

Guarantee: every clip of the training part belongs to exactly one client; a held-out person's clips are at
no client, whatever site they are on; client names and their grouping do not depend on who is held out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive

Index = NDArray[np.int64]


@dataclass(frozen=True)
class ClientRule:
    """`subject`, `site`, or `site` with a number of groups."""

    kind: str
    groups: int | None = None

    def __str__(self) -> str:
        return self.kind if self.groups is None else f"{self.kind}:{self.groups}"


@dataclass(frozen=True, eq=False)
class Client:
    """One client: its public name and the archive rows it holds (int64, ascending, never empty)."""

    name: str
    index: Index

    @property
    def clips(self) -> int:
        return len(self.index)


def parse_clients(text: str) -> ClientRule:
    """Read `subject`, `site` or `site:K`; InputError for anything else."""
    kind, colon, number = text.partition(":")
    if not colon and kind in ("subject", "site"):
        return ClientRule(kind)
    if kind == "site" and number.isdecimal() and int(number) >= 2:
        return ClientRule("site", int(number))
    raise InputError(f"--clients {text!r} is not known: use subject, site, or site:K with K >= 2 groups")


def partition(archive: "Archive", rule: ClientRule, train: Index | None = None) -> tuple[Client, ...]:
    """Share the rows `train` (default: all) among the clients; a client without a row is left out.

    The grouping is made on the whole archive, from persons, sites and clip counts (no label), so that a
    client keeps its name and its other members when a person is held out.
    InputError: more groups than persons.
    """
    labels = _labels(archive, rule)
    rows = np.arange(archive.n, dtype=np.int64) if train is None else np.sort(np.asarray(train, np.int64))
    names = np.unique(labels)
    found = (Client(str(name), rows[labels[rows] == name]) for name in names)
    return tuple(client for client in found if client.clips)


def class_counts(archive: "Archive", client: Client) -> NDArray[np.float64]:
    """Clips of each class at one client, float64 [K]: what a client adds to the secure count."""
    return np.bincount(archive.y[client.index], minlength=len(archive.classes)).astype(np.float64)


def _labels(archive: "Archive", rule: ClientRule) -> NDArray[np.str_]:
    """The client name of every row, [n]."""
    if rule.kind == "subject":
        return np.asarray(archive.person)
    if rule.groups is None:
        return np.asarray(archive.site)
    return _grouped(archive, rule.groups)


def _grouped(archive: "Archive", groups: int) -> NDArray[np.str_]:
    """K groups of whole persons, each within one site where there are at least as many groups as sites."""
    persons, first, counts = np.unique(archive.person, return_index=True, return_counts=True)
    if groups > len(persons):
        raise InputError(f"--clients site:{groups} asks for more groups than the {len(persons)} persons")
    homes = np.asarray(archive.site)[first]
    sites = np.unique(homes)
    if len(sites) > groups:
        homes, sites = np.full(len(persons), "all"), np.array(["all"])
    clips = [int(counts[homes == site].sum()) for site in sites]
    members = [int((homes == site).sum()) for site in sites]
    chosen = np.empty(len(persons), dtype=object)
    for site, share in zip(sites, _apportion(clips, members, groups), strict=True):
        rows = np.flatnonzero(homes == site)
        for row, group in zip(rows, _balance(counts[rows], share), strict=True):
            chosen[row] = f"{site}#{group + 1}"
    position = np.searchsorted(persons, archive.person)
    return np.asarray(chosen.astype(str))[position]


def _apportion(clips: Sequence[int], members: Sequence[int], groups: int) -> list[int]:
    """Share `groups` over sites by clips a group: at least one each, never more than a site's persons."""
    shares = [1] * len(clips)
    while sum(shares) < groups:
        open_sites = [i for i in range(len(clips)) if shares[i] < members[i]]
        shares[max(open_sites, key=lambda i: (clips[i] / shares[i], -i))] += 1
    return shares


def _balance(counts: NDArray[np.int64], groups: int) -> list[int]:
    """Group of each person: the largest first, into an empty group while there is one, else the lightest."""
    load, size = [0] * groups, [0] * groups
    chosen = [0] * len(counts)
    for row in sorted(range(len(counts)), key=lambda i: (-counts[i], i)):
        group = min(range(groups), key=lambda g: (size[g] > 0, load[g], size[g], g))
        chosen[row] = group
        load[group] += int(counts[row])
        size[group] += 1
    return chosen
