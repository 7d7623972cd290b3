"""Features from an online store that Feast filled, read without Feast.

Read `plan` (what to read), `join` (how a call uses it), then one of `stores`; `circuit` and `cache` are stores around
any of them. `derive`: columns that a function of the feature repository works out. `compile` makes plans, at deploy
time only.
"""
