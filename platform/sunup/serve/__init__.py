"""What runs as `python -m sunup.serve...` or is forked from it: nursery, workers and the front."""
