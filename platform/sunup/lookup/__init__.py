"""Features from an online store that Feast filled, read without Feast.

Read `plan` (what to read), `join` (how a call uses it), then one of `stores`; `cache` is a store around any of them.
`compile` makes plans, at deploy time only.
"""
