"""The process that looks whether an alias moved, and deploys what it names then. Read follower.py."""
