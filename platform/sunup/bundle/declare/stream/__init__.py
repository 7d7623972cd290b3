"""[stream] of function.toml, and the references to secrets it may hold."""
