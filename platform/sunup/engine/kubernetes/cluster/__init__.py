"""The only place that speaks to a cluster's API. Read cluster.py."""
