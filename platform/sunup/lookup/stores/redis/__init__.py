"""Redis: where it is (address), how a connection begins (connect) and goes on (link), what is read (reads); a server or
the master that Sentinels name (store, sentinel), a cluster (cluster, nodes, slots)."""
