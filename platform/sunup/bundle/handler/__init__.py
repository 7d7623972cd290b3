"""handler.py of a function: read, given its dependencies, and tried before anybody is served by it."""
