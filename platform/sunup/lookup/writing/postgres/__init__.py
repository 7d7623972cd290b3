"""Into PostgreSQL: one connection (link), and what is said there (writer)."""
