"""The fixed numbers of `lattice`, version 1. None of them is ever read from the wire.

Ring Z_q[X]/(X^N + 1). Secret and error are discrete Gaussians of one deviation; the caps on log2 q are those
of 128 bits (classical) for a Gaussian secret and an error of 3.19 in the 2025 guidelines (eprint 2024/463,
table 5.2), which is what a hint leaves of 6.4 where two honest clients are left (docs/lattice.md).
"""

SIGMA = 6.4
CAPS = {2048: 55, 4096: 108, 8192: 216}  # N -> most bits of q
LANES = 16  # polynomials side by side: one vector register of 32-bit words
CHECK = 9.0  # deviations of a summed error above which a key sum is taken for wrong
ROOM = 10.0  # deviations of room for it in the modulus
FOUND = 40  # a wrong key sum passes the check with 2^-40 at most
KEY_BITS = 8  # of a coefficient of a key as a code of `secagg+`: it stays below 58 in magnitude
MEMBERS = 30  # of the default committee
MAX_MEMBERS = 256
MAX_PRIME_BITS = 31
MAX_RADIX = 1 << 30
