"""What the report says about each scheme and verdict, in words for people who run studies."""

from merveil.protocols.policy import SECURE_SCHEMES

# scheme -> (what it is, who could read a participant's data)
SCHEMES: dict[str, tuple[str, str]] = {
    "plain": (
        "no protection: devices send their updates as they are",
        "The server reads every device's update.",
    ),
    "secagg": (
        "devices hide their updates under masks that cancel in the sum; every pair shares a mask",
        "Nobody, unless the server joins forces with more devices than the scheme tolerates.",
    ),
    "secagg+": (
        "masks that cancel in the sum, shared with a few random partners: for many devices",
        "Nobody, unless the server joins forces with more devices than the scheme tolerates.",
    ),
    "ckks": (
        "devices encrypt their updates; sums are taken on ciphertexts",
        "Whoever pools enough key shares; otherwise nobody.",
    ),
    "lattice": (
        "one-shot masks made from a lattice problem; a committee opens only the sum of the keys",
        "A server with more committee members on its side than the scheme tolerates; otherwise nobody.",
    ),
}

# verdict on a scheme -> (word on the page, tone)
VERDICTS: dict[str, tuple[str, str]] = {
    "broken": ("exposed", "bad"),
    "protected": ("hidden", "good"),
    "underpowered": ("cannot tell", "warn"),
    "control-failed": ("test invalid", "warn"),
}


# attacks whose outcome has a word of its own
OWN_WORDS = {"A17": {"broken": "taken", "protected": "noticed"}}


def verdict(attack: str, found: str) -> tuple[str, str]:
    """(word on the page, tone) of a verdict on one attack."""
    word, tone = VERDICTS[found]
    return OWN_WORDS.get(attack, {}).get(found, word), tone


def what(scheme: str) -> str:
    """One line on a scheme; a scheme without a text of its own is named only."""
    return SCHEMES.get(scheme, (f"the scheme {scheme}", ""))[0]


def noise(dp: str) -> str:
    """What differential privacy adds to the line on a scheme."""
    return {
        "none": "",
        "distributed": "; each device adds its share of noise before it sends",
        "central": "; the server, trusted with the sum, adds noise before it publishes",
    }[dp]


def trust(scheme: str) -> str:
    """Who could read a participant's data."""
    if scheme in SCHEMES:
        return SCHEMES[scheme][1]
    return "See SECURITY.md." if scheme in SECURE_SCHEMES else "The server."


def size(count: float) -> str:
    """Bytes for people: 4.6 kB, 1.2 MB."""
    for unit, step in (("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """A time for people: 12 ms, 3.4 s, 2 min."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "under 1 ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def share(part: float, whole: int) -> str:
    """0.0125 of 80 as "1 of 80"."""
    return f"{round(part * whole)} of {whole}"
