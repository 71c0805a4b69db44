"""Partition into clients: complete, disjoint, stable under a held-out person."""

from types import SimpleNamespace

import numpy as np
import pytest

from merveil.fl.clients import ClientRule, class_counts, parse_clients, partition
from merveil.mer.data.archive import load_archive
from merveil.mer.errors import InputError


@pytest.mark.parametrize("text", ["subject", "site", "site:2", "site:17"])
def test_rules_read_back_as_written(text):
    assert str(parse_clients(text)) == text


@pytest.mark.parametrize(
    "text", ["", "subjects", "site:", "site:1", "site:-3", "site:two", "subject:3", "site:²"]
)
def test_unknown_rules_are_refused(text):
    with pytest.raises(InputError, match="subject, site, or site:K"):
        parse_clients(text)


@pytest.mark.parametrize("text", ["subject", "site", "site:2", "site:4", "site:9"])
def test_every_clip_is_at_exactly_one_client(people, text):
    clients = partition(people, parse_clients(text))
    rows = np.concatenate([client.index for client in clients])
    assert sorted(rows.tolist()) == list(range(people.n))
    assert all(client.clips for client in clients)
    for client in clients:  # whole persons only
        inside = np.isin(people.person, people.person[client.index])
        assert text == "site" or np.array_equal(np.flatnonzero(inside), client.index)


def test_groups_are_as_many_as_asked_and_stay_on_one_site(people):
    for k in (2, 3, 5, 9):
        clients = partition(people, ClientRule("site", k))
        assert len(clients) == k
        assert all(len(np.unique(people.site[client.index])) == 1 for client in clients)


def test_fewer_groups_than_sites_mix_the_sites(make):
    archive = make([[0, 1]] * 6, sites=["a", "b", "c"] * 2)
    clients = partition(archive, ClientRule("site", 2))
    assert [client.clips for client in clients] == [6, 6]


def test_more_groups_than_persons_is_an_input_error(people):
    with pytest.raises(InputError, match=r"site:10 asks for more groups than the 9 persons"):
        partition(people, ClientRule("site", 10))


@pytest.mark.parametrize("text", ["subject", "site", "site:3"])
def test_a_held_out_person_leaves_every_client_and_the_others_stay(people, text):
    rule = parse_clients(text)
    before = {client.name: set(client.index.tolist()) for client in partition(people, rule)}
    for person in people.persons():
        train = np.flatnonzero(people.person != person)
        after = {client.name: set(client.index.tolist()) for client in partition(people, rule, train)}
        out = set(np.flatnonzero(people.person == person).tolist())
        assert after == {name: rows - out for name, rows in before.items() if rows - out}


def test_a_client_left_empty_sits_the_fold_out(people):
    person = people.persons()[2]
    clients = partition(people, ClientRule("subject"), np.flatnonzero(people.person != person))
    assert person not in [client.name for client in clients] and len(clients) == 8


def test_a_person_seen_at_two_sites_leaves_both():
    names = ["p", "q", "p", "r"]
    archive = SimpleNamespace(
        n=4,
        person=np.array(names),
        site=np.array(["a", "a", "b", "b"]),
        classes=("x", "y"),
        y=np.arange(4) % 2,
    )
    left = partition(archive, ClientRule("site"), np.flatnonzero(archive.person != "p"))
    assert [(client.name, client.index.tolist()) for client in left] == [("a", [1]), ("b", [3])]


def test_class_counts_add_up(people):
    clients = partition(people, ClientRule("subject"))
    total = sum(class_counts(people, client) for client in clients)
    assert total.tolist() == np.bincount(people.y, minlength=3).tolist()


@pytest.mark.data
def test_clients_of_the_real_composite(real_file):
    archive = load_archive(real_file)
    subjects = partition(archive, ClientRule("subject"))
    counts = sorted(client.clips for client in subjects)
    assert len(subjects) == 40 and (counts[0], counts[-1], sum(counts)) == (1, 39, 309)
    sites = partition(archive, ClientRule("site"))
    assert {client.name: client.clips for client in sites} == {"smic": 164, "casme2": 145}
    groups = partition(archive, ClientRule("site", 6))
    assert len(groups) == 6 and max(g.clips for g in groups) < 2 * min(g.clips for g in groups)
