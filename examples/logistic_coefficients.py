"""Coefficients of a logistic regression, averaged over sites that show nobody their own.

    python examples/logistic_coefficients.py

With scikit-learn installed the sites fit `LogisticRegression`; without it, a numpy fit with the same
attributes (`coef_`, `intercept_`) takes its place, and the script says so. The secure part is the same.
"""

import numpy as np

from merveil import SecureAggregator

try:
    from sklearn.linear_model import LogisticRegression

    source = "scikit-learn"
except ImportError:
    source = "numpy in the place of scikit-learn, which is not installed"

    class LogisticRegression:  # type: ignore[no-redef]
        """Newton's method with an L2 penalty on the coefficients, C = 1."""

        def fit(self, x: np.ndarray, y: np.ndarray) -> "LogisticRegression":
            design = np.hstack([x, np.ones((len(x), 1))])
            penalty = np.diag([1.0] * x.shape[1] + [0.0])
            theta = np.zeros(x.shape[1] + 1)
            for _ in range(25):
                p = 1 / (1 + np.exp(-design @ theta))
                hessian = design.T @ (design * (p * (1 - p))[:, None]) + penalty
                theta -= np.linalg.solve(hessian, design.T @ (p - y) + penalty @ theta)
            self.coef_, self.intercept_ = theta[None, :-1], theta[-1:]
            return self


rng = np.random.default_rng(0)
truth = rng.normal(0, 2, 6)


def site(n: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.normal(0, 1, (n, 6))
    return x, (rng.random(n) < 1 / (1 + np.exp(-x @ truth))).astype(int)


sites = [site(n) for n in (120, 300, 80, 200, 150, 90)]
models = [LogisticRegression().fit(x, y) for x, y in sites]
sizes = [len(y) for _, y in sites]

# before: coef = np.average([m.coef_ for m in models], axis=0, weights=sizes)
aggregator = SecureAggregator("secagg", clip=8.0, bits=24)
mean = aggregator.mean([[m.coef_, m.intercept_] for m in models], weights=sizes)
coef, intercept = mean.value

clear = np.average([m.coef_ for m in models], axis=0, weights=sizes)
x, y = site(2000)
score = float(((x @ coef[0] + intercept[0] > 0) == y).mean())
apart = np.abs(coef - clear).max()
print(f"fits by {source}; accuracy {score:.3f}; largest difference to the clear mean {apart:.1e}")
assert apart < 1e-5 and score > 0.7
