"""The command `platform`: thin. It parses, calls and prints; compose.py wires the parts together."""
