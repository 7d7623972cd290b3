"""Features from an online store that Feast filled, read without Feast.

<<<<<<< HEAD
Read `plan` (what to read), `join` (how a call uses it), then one of `stores`.
=======
Read `plan` (what to read), `join` (how a call uses it), then one of `stores`; `cache` is a store around any of them.
>>>>>>> 0d6f674 (Caches, off by default: values read from a feature store per view, and answers of identical or similar rows; pictures are known before they are decoded)
`compile` makes plans, at deploy time only.
"""
