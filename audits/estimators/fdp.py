"""One-run auditing under a Gaussian trade-off: tighter than (epsilon, delta) counts of the same guesses.

Guarantee: with probability at least `confidence` the bound on mu lies at or below the true one, if each of
`canaries` was in by a fair coin of its own and the guesses were made without its help.
Source: Mahloujifar, Melis, Chaudhuri 2024 (arXiv 2410.22235), the recursion of their algorithm 3 with two
choices a canary. Its calibration on nulls, and on the Gaussian mechanism itself, is
tests/attacks/test_estimators.py.
"""

from merveil.audits.estimators.gaussian import MuBound, epsilon_of_mu
from merveil.mer.extras import need


def rejected(canaries: int, guesses: int, correct: int, mu: float, alpha: float) -> bool:
    """Whether `correct` right of `guesses` are too many for a mu-Gaussian mechanism, at level alpha."""
    special = need("scipy.special", "audits")
    right = alpha * correct / canaries
    wrong = alpha * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        raised = max(wrong, float(special.ndtr(special.ndtri(right) - mu)))
        if raised == wrong:
            break
        right, wrong = min(1.0, right + i / (guesses - i) * (raised - wrong)), raised
    return right + wrong > guesses / canaries


def f_dp(canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.999) -> MuBound:
    """Largest mu that the guesses of a single run reject, and its epsilon at delta."""
    alpha = 1 - confidence
    if not rejected(canaries, guesses, correct, 0.0, alpha):
        return MuBound(0.0, 0.0, confidence, canaries)
    low, high = 0.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(canaries, guesses, correct, middle, alpha) else (low, middle)
    return MuBound(low, epsilon_of_mu(low, delta), confidence, canaries)
