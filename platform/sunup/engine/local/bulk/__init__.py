"""Many bundles deployed by one command: proven one after another by a few processes, recorded and routed together."""
