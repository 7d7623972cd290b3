"""Python environments that are not ours: what a model needs of its own, solved, made and kept."""
