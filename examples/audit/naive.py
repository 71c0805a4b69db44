"""A secure sum as it is often written first: a pad a client, from a seed that server and client share.

The pads never change, so two rounds of one client give away how its update changed, and one known update
gives away every later one. The means are right, which is why it passes for working.

    merveil audit --aggregator naive:NaiveAggregator        # in this folder: ends with exit code 4
"""

import numpy as np


class NaiveAggregator:
    """`mean` over padded floats. uploads: what the clients send."""

    def _pad(self, client: int, size: int) -> np.ndarray:
        return np.random.default_rng(client).normal(0, 1000, size)

    def uploads(self, updates):
        """One message a client: its update under its pad, as raw floats."""
        return [(np.asarray(u, float) + self._pad(i, len(u))).tobytes() for i, u in enumerate(updates)]

    def mean(self, updates, weights=None):
        """Add the messages up, take the pads off, divide."""
        received = [np.frombuffer(message) for message in self.uploads(updates)]
        plain = [message - self._pad(i, len(message)) for i, message in enumerate(received)]
        return np.average(plain, axis=0, weights=weights)
