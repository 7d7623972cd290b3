"""Functions that follow an alias: what is recorded of them, and the follower that looks. Read following.py."""
