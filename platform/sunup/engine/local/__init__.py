"""The local engine: supervisor, door, and the records they keep. Read supervisor.py first, then door.py."""
