"""What becomes of a batch between poll and commit: read, scored, and each record answered for."""
