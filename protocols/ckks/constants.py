"""The fixed numbers of `ckks`, version 1. None of them is ever read from the wire.

Ring Z[X]/(X^4096 + 1). Two data primes of 36 bits carry ciphertexts (Q = 2^72); a third of 34 bits exists
while a client encrypts, and is divided away. 106 bits in all: within the 128-bit cap for a ternary secret of
the 2025 guidelines (eprint 2024/463, table 5.2). The primes are those that SEAL chooses for [36, 36, 34].
"""

DEGREE = 4096
PRIMES = (68719230977, 68719403009, 17179754497)
BITS = (36, 36, 34)
DATA = 2  # the first two primes: what a ciphertext consists of
SPECIAL = 2  # position of the third
CIPHERTEXT_BYTES = DEGREE * (BITS[0] + BITS[1]) // 8  # one polynomial over the data primes: 36,864
PUBLIC_BYTES = DEGREE * sum(BITS) // 8  # one polynomial over all three: 54,272
ERROR_VARIANCE = 10.5  # centred binomial of 2 x 21 bits, as SEAL draws it
TERNARY_VARIANCE = 2 / 3
