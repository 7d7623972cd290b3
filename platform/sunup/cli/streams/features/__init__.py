"""What a function aggregates of its topic, made again."""
