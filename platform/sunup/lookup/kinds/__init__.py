"""Lookups that do more than read, and which one a plan needs."""
