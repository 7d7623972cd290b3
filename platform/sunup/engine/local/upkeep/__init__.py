"""What the local engine does for itself: it removes what nobody refers to, and replaces what runs old code."""
