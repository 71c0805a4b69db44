"""Differential privacy on the integer grid: exact noise, the mechanism around it, and its accountant."""
