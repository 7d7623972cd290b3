"""The door: accepts every connection and passes it to a worker. Read door.py first."""
