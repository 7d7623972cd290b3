"""What processes share: descriptor messages, connection states, counters, the routing rule. Standard library only."""
