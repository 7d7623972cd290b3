"""What outlives a process: a SQLite file per partition, and a compacted topic that it can be made of again."""
