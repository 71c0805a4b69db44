"""Positive control of A23-gate: a member that has no gate and trains on whatever it is sent."""

from typing import Any


class OpenGate:
    """Admits every model, remembers none; takes what `fl.gate.ModelGate.admit` takes."""

    def admit(self, *model: Any, **about: Any) -> None:
        """Nothing is refused."""
