"""Tiles of many entities at once: what they hold, how they lie in memory, and as bytes."""
