"""Commands on many functions at once."""
