"""The two Feast views of the bench of features: what is in them, without Feast, as the floor imports this too.

The model of models.py has thirty inputs: f0 to f9 come with the request, f10 to f19 from card_stats by card_id and f20
to f29 from merchant_stats by merchant_id.
"""

PROJECT = "bench"
SERVICE = "score"
TTL_S = 30 * 86400.0
VIEWS = [
    ("card_id", "card_stats", [f"f{i}" for i in range(10, 20)]),
    ("merchant_id", "merchant_stats", [f"f{i}" for i in range(20, 30)]),
]
