"""A client's dealing: two seeds, shared among its holders and committed to share by share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.agreement import public_bytes
from merveil.protocols.primitives.shamir import coefficients_size, split_pair
from merveil.protocols.rng import Rng
from merveil.protocols.secagg.keys import mask_scalar
from merveil.protocols.secagg.messages import NONCE, SALT, Advert, Held, seed_commitment


@dataclass(frozen=True)
class Dealing:
    """The advert and what stands behind it. held: holder -> both its shares. tree: flat Merkle tree
    over the holders' nodes.
    """

    advert: Advert
    seed: bytes = field(repr=False)
    key_seed: bytes = field(repr=False)
    held: dict[int, Held] = field(repr=False)
    tree: bytes = field(repr=False)


def deal(context: bytes, dealer: int, holders: Sequence[int], threshold: int, rng: Rng) -> Dealing:
    """Draw the seeds and share them; point of the j-th holder (from 0) is j + 1."""
    seed, key_seed = rng.draw(32, "secagg/self-mask-seed"), rng.draw(32, "secagg/mask-key-seed")
    randomness = rng.draw(2 * coefficients_size(threshold), "secagg/coefficients")
    salts = rng.draw(2 * SALT * len(holders), "secagg/salts")
    pairs = split_pair(seed, key_seed, threshold, range(1, len(holders) + 1), randomness)
    held = {}
    for j, (holder, (one, two)) in enumerate(zip(holders, pairs)):
        at = 2 * SALT * j
        held[holder] = Held(one, two, salts[at : at + SALT], salts[at + SALT : at + 2 * SALT])
    tree = merkle.flat_tree([held[h].node(dealer, h) for h in holders])
    advert = Advert(
        rng.draw(NONCE, "secagg/nonce"),
        public_bytes(mask_scalar(context, key_seed)),
        seed_commitment(context, dealer, seed),
        merkle.root(tree),
    )
    return Dealing(advert, seed, key_seed, held, tree)
