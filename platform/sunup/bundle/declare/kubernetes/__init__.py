"""[kubernetes] of function.toml."""
