"""Records that could not be scored: looked at, and sent again."""
