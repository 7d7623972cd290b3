"""The served-feature log: what is written of a call (schema), how it waits (spool), how it is kept (shelf, parquet)."""
