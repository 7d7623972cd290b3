"""Stream feature views: tiles of what happened, kept per entity and partition, read by the scores of the same topic."""
