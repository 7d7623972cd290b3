"""What serving processes tell about themselves: logs, counters in shared memory, their exposition."""
