"""Bundles proven without being served."""
