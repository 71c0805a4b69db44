"""Membership estimators as auditors use them; the arithmetic is `merveil.attacks.membership`.

Attacks score with them too and may not import audits, so they live there. tests/attacks/test_membership.py
calibrates each on 400 nulls in which people, not records, are the independent units.
"""

from merveil.attacks.membership import Game, bavaria, blind, confidence, hits_at, interval, lira, rmia

__all__ = ["Game", "bavaria", "blind", "confidence", "hits_at", "interval", "lira", "rmia"]
