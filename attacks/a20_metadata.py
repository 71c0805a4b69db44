"""A20: does a frame give away how many clips a client holds, by a number in clear or by its length?

Reads the weight coordinate of each client's frame as if it were in clear, and, where that is no weight, ranks
clients by the bytes they sent. A20-time looks at when a client answers: of two clients, the one that took
longer is taken for the one with more clips.
"""

from typing import Any

import numpy as np

from merveil.attacks.base import CURIOUS_SERVER, Attack, Finding, Public, Rule
from merveil.attacks.clock import answer_times
from merveil.attacks.findings import proportion
from merveil.attacks.plays import Guess
from merveil.attacks.reading import weights
from merveil.protocols.frame import SERVER


def bytes_sent(view: Any) -> dict[int, int]:
    """client -> bytes of all its frames to the server."""
    total: dict[int, int] = {}
    for frame in view.frames:
        if frame.sender != SERVER and frame.to == SERVER:
            total[frame.sender] = total.get(frame.sender, 0) + len(frame.encode())
    return total


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"weights": {client: guess}, "sizes": how many different byte counts the clients have}."""
    sent, read = bytes_sent(view), weights(view)
    sizes = sorted(set(sent.values()))
    guess = {}
    for client in sent:
        value = read.get(client, 0)
        if not 1 <= value <= public.max_weight:
            # Evenly spread over the range by rank of length; with one length only, the middle.
            rank = (sizes.index(sent[client]) + 0.5) / len(sizes)
            value = 1 + int(rank * public.max_weight)
        guess[client] = value
    return {"weights": guess, "sizes": len(sizes)}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of clients whose weight is guessed exactly; chance is the likeliest single value."""
    pairs = [(g["weights"].get(c), w) for g, t in zip(guesses, truths) for c, w in t.weights.items()]
    hits, n = sum(a == b for a, b in pairs), len(pairs)
    values = np.array([w for _, w in pairs])
    chance = float(np.bincount(values).max() / n)
    return proportion(
        hits,
        n,
        "share of clients whose clip count is read exactly",
        "clients",
        details={"different_frame_lengths": float(max(g["sizes"] for g in guesses))},
        chance=chance,
    )


def infer_slower(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """Of a client with few and one with many clips, the one that took longer."""
    seconds = answer_times(view, rng)
    slower = max(seconds, key=lambda i: seconds[i])
    return Guess(slower, figures={"ratio": max(seconds.values()) / max(min(seconds.values()), 1e-9)})


def score_slower(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of pairs told apart; a coin gets half."""
    right = [
        truth[g.victim, 1][-1] == max(v[-1] for v in truth.values()) for g, truth in zip(guesses, truths)
    ]
    ratio = {"time_ratio": float(np.median([g.figures["ratio"] for g in guesses]))}
    statistic = "share of pairs in which the client with more clips is told by its time"
    return proportion(sum(map(bool, right)), len(right), statistic, "pairs", details=ratio, chance=0.5)


ATTACKS = (
    Attack(
        id="A20",
        title="clip counts from numbers in clear or frame lengths",
        plain_words="Can the server see how many clips a participant's device holds?",
        adversary=CURIOUS_SERVER,
        setting="weighted",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.1),
        source="FedAvg sends clip counts in clear in most frameworks.",
    ),
    Attack(
        id="A20-time",
        title="who holds more clips, from when the answer comes",
        plain_words="Can the server see from the waiting time whose device holds many clips?",
        adversary=CURIOUS_SERVER,
        setting="protocol",
        infer=infer_slower,
        score=score_slower,
        rule=Rule(success=0.9, margin=0.05),
        source="Training on more clips takes longer.",
        tries=40,
    ),
)
