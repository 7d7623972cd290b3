"""Bytes to calls and replies to bytes: one codec per protocol, all of them compiled from the same fields."""
