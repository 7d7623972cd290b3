"""The protocols that send tables: KServe v1 and MLflow's scoring server. Read columns.py first."""
