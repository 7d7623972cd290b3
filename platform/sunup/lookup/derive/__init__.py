"""On-demand feature views in a worker: what their functions are given, what becomes of what they give."""
