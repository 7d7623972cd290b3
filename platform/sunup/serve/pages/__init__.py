"""What is said about functions without running a model, by a worker of one and by the front of all."""
