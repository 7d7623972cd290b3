"""`platform image`: container images."""
