"""`platform status`, once or every second. Read command.py."""
