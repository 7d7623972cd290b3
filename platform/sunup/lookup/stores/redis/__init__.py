"""Redis: where it is, one connection, and the store on top."""
