"""Exactly once: whose the partitions are, outputs and positions in one step, and an end to every wait for it."""
