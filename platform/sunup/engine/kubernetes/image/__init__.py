"""Container images without a container engine: made, written and pushed."""
