"""Who may call, and what the processes that answer may do: keys, hosts, rights."""
