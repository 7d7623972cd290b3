"""How many workers a function should have: arithmetic on samples and time, nothing else."""
