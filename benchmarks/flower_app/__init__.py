"""A small Flower app as its users write one; benchmarks/flower_round.py copies it and runs it in three
ways."""
