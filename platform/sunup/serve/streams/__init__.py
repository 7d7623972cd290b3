"""The processes behind topics: the stream worker, and the watcher of lag."""
