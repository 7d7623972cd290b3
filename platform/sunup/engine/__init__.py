"""Engines keep workers alive and scaled: `local` on this machine."""
