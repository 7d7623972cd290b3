"""function.toml: what it says, how it is read, and whether it fits the model."""
