"""The served-feature log in running processes: the worker's end, and the recorder."""
