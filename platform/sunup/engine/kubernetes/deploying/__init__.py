"""Changing what a function is on a cluster, step by step. Read rolling.py."""
