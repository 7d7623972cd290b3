"""Which model? Names as people type them, and the registries they are looked up in."""
