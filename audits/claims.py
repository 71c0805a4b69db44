"""Every claim and non-claim of SECURITY.md, with the attacks that try it and the schemes it is made for.

Guarantees: `tests/attacks/test_audits.py` holds this list, the audit files and SECURITY.md together, both
ways. A claim C-nn holds when its attacks fail with stated power; a non-claim N-nn, a declared leak, holds
when its attacks succeed.
"""

from dataclasses import dataclass

from merveil.attacks.base import Attack
from merveil.attacks.registry import get
from merveil.protocols.policy import SECURE_SCHEMES
from merveil.protocols.registry import names


@dataclass(frozen=True, slots=True)
class Claim:
    """id: C-nn or N-nn. text: one sentence. attacks: ids of attacks.registry. applies: which schemes."""

    id: str
    text: str
    attacks: tuple[str, ...]
    applies: str  # "secure", "insecure", "all", or the name of one scheme

    @property
    def leak(self) -> bool:
        """Whether this is a non-claim, whose attack is to succeed."""
        return self.id.startswith("N-")

    def covers(self, scheme: str) -> bool:
        if self.applies in names():
            return scheme == self.applies
        return self.applies == "all" or (scheme in SECURE_SCHEMES) == (self.applies == "secure")

    def tries(self, attack: Attack, scheme: str) -> bool:
        """Whether this claim tries an attack on a scheme: both must apply."""
        return self.covers(scheme) and (not attack.schemes or scheme in attack.schemes)

    def why_not(self, scheme: str) -> str:
        """Why a scheme is skipped."""
        if self.applies in names():
            return f"{self.id} is about {self.applies} alone"
        if self.applies == "secure":
            return f"{self.id} is not claimed for {scheme}, which hides nothing from the server (N-01)"
        return f"{self.id} is about schemes without protection; {scheme} claims the opposite (C-01)"


CLAIMS: dict[str, Claim] = {
    c.id: c
    for c in (
        Claim(
            "C-01",
            "Beyond the survivors' sum, the frames of a secure scheme help a curious server in nothing that "
            "we can measure: not to rebuild a clip, to place one at a client, or to count its labels.",
            ("A24", "A24-exact", "A24-length", "A24-steps", "A24-batch", "A25", "A25-unmix", "A26"),
            "secure",
        ),
        Claim(
            "C-02",
            "No clip count crosses in clear in a secure scheme, and the bytes a client sends do not depend "
            "on its data.",
            ("A20",),
            "secure",
        ),
        Claim(
            "C-30",
            "The frames of a secure scheme do not tell the server which client a person is behind, though it "
            "holds other clips of that person.",
            ("A28-link",),
            "secure",
        ),
        Claim(
            "C-31",
            "A server that pools the inputs and frames of a quarter of the clients learns no more about the "
            "frames of the others than it does alone.",
            ("A24-pool", "A25-pool", "A26-pool"),
            "secure",
        ),
        Claim(
            "C-32",
            "Clients whose policy sets a minimum difference answer for no second sum that differs by one "
            "client.",
            ("A21",),
            "secure",
        ),
        Claim(
            "C-33",
            "Clients that are sent different models end up in no common sum: the model's hash is bound to "
            "every key and signature.",
            ("A22",),
            "secure",
        ),
        Claim(
            "C-34",
            "A member that has the gate trains neither on another architecture nor on values that are no "
            "numbers, nor, after an honest model, on imprint bins or trap rows as published.",
            ("A23-gate",),
            "all",
        ),
        Claim(
            "C-35",
            "Beyond the three sums of exact-ridge, the frames of a secure scheme tell a curious server "
            "neither which clips a client holds nor how many of each class.",
            ("A25-gram-upload", "A26-moments-upload"),
            "secure",
        ),
        Claim(
            "N-60",
            "The sums of exact-ridge leak, whatever the scheme: the second counts the clips of each class, "
            "the third tells without error which known clips took part while it holds fewer than columns.",
            ("A25-gram", "A26-moments"),
            "all",
        ),
        Claim(
            "N-31",
            "A small cohort's sum gives clips back: their movement is rebuilt, their membership is certain "
            "where a hidden layer is fully connected, and behind a ReLU layer a batch falls apart exactly.",
            ("A24-sum", "A25-span", "A25-unmix-sum"),
            "all",
        ),
        Claim(
            "N-32",
            "A start model made to leak, sent to all clients alike, gives single clips away through any sum; "
            "one trained with a secret decoder (SEER) passes the gate.",
            ("A23", "A23-trap", "A23-seer"),
            "all",
        ),
        Claim(
            "N-33",
            "Sums of the same vectors over different survivors are solved for each vector; the default "
            "policy does not mind survivor sets that differ by one.",
            ("A21-default", "A21-rounds"),
            "all",
        ),
        Claim(
            "N-30",
            "Who trained stays in what is published: the final model tells clips and people that took part, "
            "and the sums of all rounds tell the clips exactly where the first layer is fully connected. "
            "Secure aggregation does not change that.",
            ("A27", "A27-rounds", "A28"),
            "all",
        ),
        Claim("C-03", "A client frame with a flipped bit is never taken silently.", ("A17",), "all"),
        Claim(
            "C-10",
            "Neither the published sum nor what the server sees while it is opened gives a key away.",
            ("A14",),
            "ckks",
        ),
        Claim("C-11", "Fewer than t clients that pool their key shares read no upload.", ("A15",), "ckks"),
        Claim(
            "C-12",
            "A transparent, malformed or foreign ciphertext is never added to a sum.",
            ("A16",),
            "ckks",
        ),
        Claim("C-13", "A server cannot have one client's ciphertext opened.", ("A31-server",), "ckks"),
        Claim(
            "C-14",
            "No decryptor answers twice for a round, whatever the subset or the attempt.",
            ("A34",),
            "ckks",
        ),
        Claim(
            "N-01",
            "Under `plain` the server reads every update: it rebuilds single clips, places known clips at "
            "clients, tells which client a person is behind, and reads label counts and clip counts.",
            (
                "A20",
                "A24",
                "A24-exact",
                "A24-length",
                "A24-steps",
                "A24-batch",
                "A25",
                "A25-unmix",
                "A25-gram-upload",
                "A26",
                "A26-moments-upload",
                "A28-link",
            ),
            "insecure",
        ),
        Claim(
            "N-02",
            "The published sum itself leaks, whatever the scheme: in small cohorts it tells which clips took "
            "part, and how often each class occurs.",
            ("A25-sum", "A26-sum"),
            "all",
        ),
        Claim(
            "N-10",
            "A client that crafts its ciphertext reads the round's key off the announced sum, and with the "
            "traffic what others sent: nothing proves that an upload is an encryption.",
            ("A31",),
            "ckks",
        ),
        Claim(
            "C-20",
            "A client's DP-SGD shows no larger epsilon than its accountant states, at 2 to 10 clips.",
            ("A29",),
            "all",
        ),
        Claim(
            "C-21",
            "In every sum that a scheme admits, the noise that the server and its colluders do not know has "
            "the variance that distributed differential privacy counts on.",
            ("A30",),
            "all",
        ),
        Claim(
            "C-22",
            "No vector leaves a site whose policy has dp_epsilon unless it carries noise that the site "
            "judged by its own figures and paid for on its own disk before.",
            ("A30-site",),
            "all",
        ),
        Claim(
            "N-20",
            "Under central differential privacy the server sees the sum before it adds the noise.",
            ("A30-central",),
            "all",
        ),
        Claim(
            "C-40",
            "The mask of a vector is neither found by trying seeds nor predicted from known parts of it.",
            ("A01", "A02"),
            "secure",
        ),
        Claim(
            "C-41",
            "A party sends one vector and one answer a round, whoever asks again, retries or restores.",
            ("A03", "A10", "A32"),
            "all",
        ),
        Claim(
            "C-42",
            "A server that tells two stories about who survived is not answered twice.",
            ("A04", "A05"),
            "secure",
        ),
        Claim("C-43", "Fewer shares than the threshold tell nothing about a seed.", ("A09",), "secure"),
        Claim(
            "C-44",
            "The server cannot add members, nor get a sum with fewer honest inputs than the floor.",
            ("A06", "A06-neighbours"),
            "secure",
        ),
        Claim("C-45", "Keys that the server puts in a neighbour's place are refused.", ("A07",), "secure"),
        Claim(
            "C-46", "Parameters below a party's own floor are refused, in every field.", ("A08",), "secure"
        ),
        Claim("C-47", "An altered share never changes the sum silently.", ("A11",), "secure"),
        Claim(
            "C-48",
            "A sum never wraps, and values that are no numbers, or none of the grid, never enter it.",
            ("A12", "A13"),
            "all",
        ),
        Claim(
            "C-49",
            "Long-term keys stolen later open no round that has closed.",
            ("A33",),
            "secure",
        ),
        Claim(
            "C-50",
            "A lattice key masks one vector: no second vector leaves under it, in whatever round, attempt or "
            "session, and differences of uploads are uniform.",
            ("A18",),
            "lattice",
        ),
        Claim(
            "C-51",
            "A committee opens one survivor set a round, and the key sums of many rounds give no key away.",
            ("A19", "A19-rounds"),
            "lattice",
        ),
        Claim(
            "C-52",
            "The tolerated number of committee members, with the server, read no upload.",
            ("A09-lattice",),
            "lattice",
        ),
        Claim(
            "N-50",
            "Who takes the long-term keys of a quorum of the committee later opens the stored rounds of "
            "`lattice`: a client that speaks once seals for keys that its receivers keep.",
            ("A33-lattice",),
            "lattice",
        ),
        Claim(
            "N-40",
            "When a client answers tells the server who holds many clips: training on more takes longer.",
            ("A20-time",),
            "all",
        ),
    )
}


def cases(claim: str) -> list[tuple[str, str]]:
    """(attack, scheme) of a claim over every scheme of the registry, covered or not."""
    return [(attack, scheme) for attack in CLAIMS[claim].attacks for scheme in names()]


def claimed(attack: str, scheme: str) -> str | None:
    """The claim that says this attack fails on this scheme, if there is one."""
    for claim in CLAIMS.values():
        if not claim.leak and attack in claim.attacks and claim.tries(get(attack), scheme):
            return claim.id
    return None


def claims_of(attack: str) -> list[str]:
    """Ids of the claims and non-claims that an attack tries."""
    return [claim.id for claim in CLAIMS.values() if attack in claim.attacks]
