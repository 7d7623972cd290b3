"""Models made of trees: one file per library that makes them, and the graphs written from what they say."""
