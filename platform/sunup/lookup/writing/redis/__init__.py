"""Into Redis: one connection (wire), who is written to (master, cluster) and what is said there (writer)."""
