"""Bundles: what a function.toml and a registered model become, how they are proven, frozen and kept."""
