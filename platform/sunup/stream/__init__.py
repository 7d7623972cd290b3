"""Records in, scores out: the brokers, and the loop between them."""
