"""What a rollout has come to, and what to do next: pure functions of what the cluster says. Read reasons.py."""
