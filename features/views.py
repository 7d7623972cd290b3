"""What Feast knows: the entities, views of daily aggregates, a view of what just happened, and the feature services of
`fraud` and of `recommend`.

The Parquet files are written by the functions' `build_features`; their history.py says what each
column means. A snapshot is made at every midnight (UTC).

TTL bounds how old a snapshot may be, in training and when it is served. It is a month, not a day: a habit of thirty
days is still worth something after a week without a feature job, and the demo serves its hold-out week with the
features of the day before that week. What must be fresher says so in function.toml (`max_age`).
"""

import warnings
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, KafkaSource, StreamFeatureView, ValueType
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.types import Float64, Int64

# Feast only keeps the definition of a stream feature view: what computes it is the function that scores the topic.
warnings.filterwarnings("ignore", "Stream feature views are experimental", RuntimeWarning)

TTL = timedelta(days=30)

card = Entity(name="card", join_keys=["card_id"], value_type=ValueType.INT64, description="a payment card")
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64, description="who owns cards")
merchant = Entity(
    name="merchant", join_keys=["merchant_id"], value_type=ValueType.INT64, description="a shop's terminal"
)


def daily(name: str) -> FileSource:
    """The snapshots of one view: a Parquet file with the entity key, event_timestamp and the features."""
    return FileSource(name=f"{name}_daily", path=f"data/{name}.parquet", timestamp_field="event_timestamp")


card_stats = FeatureView(
    name="card_stats",
    entities=[card],
    ttl=TTL,
    source=daily("card_stats"),
    schema=[
        Field(name="card_id", dtype=Int64),
        Field(name="card_tx_count_1d", dtype=Int64),
        Field(name="card_tx_count_7d", dtype=Int64),
        Field(name="card_tx_count_30d", dtype=Int64),
        Field(name="card_amount_mean_7d", dtype=Float64),
        Field(name="card_amount_mean_30d", dtype=Float64),
        Field(name="card_amount_std_30d", dtype=Float64),
        Field(name="card_amount_max_30d", dtype=Float64),
        Field(name="card_night_share_30d", dtype=Float64),
        Field(name="card_age_days", dtype=Int64),
    ],
)

customer_stats = FeatureView(
    name="customer_stats",
    entities=[customer],
    ttl=TTL,
    source=daily("customer_stats"),
    schema=[
        Field(name="customer_id", dtype=Int64),
        Field(name="customer_tx_count_7d", dtype=Int64),
        Field(name="customer_tx_count_30d", dtype=Int64),
        Field(name="customer_amount_mean_30d", dtype=Float64),
        Field(name="customer_amount_std_30d", dtype=Float64),
        Field(name="customer_km_mean_30d", dtype=Float64),
        Field(name="customer_km_max_7d", dtype=Float64),
        Field(name="customer_online_share_30d", dtype=Float64),
        Field(name="customer_cards", dtype=Int64),
        Field(name="customer_disputes_60d", dtype=Int64),
    ],
)

merchant_stats = FeatureView(
    name="merchant_stats",
    entities=[merchant],
    ttl=TTL,
    source=daily("merchant_stats"),
    schema=[
        Field(name="merchant_id", dtype=Int64),
        Field(name="merchant_tx_count_1d", dtype=Int64),
        Field(name="merchant_tx_count_7d", dtype=Int64),
        Field(name="merchant_tx_count_30d", dtype=Int64),
        Field(name="merchant_amount_mean_30d", dtype=Float64),
        Field(name="merchant_amount_std_30d", dtype=Float64),
        Field(name="merchant_km_mean_30d", dtype=Float64),
        Field(name="merchant_night_share_30d", dtype=Float64),
        Field(name="merchant_online", dtype=Int64),
        Field(name="merchant_risk_7d", dtype=Float64),
        Field(name="merchant_risk_30d", dtype=Float64),
    ],
)

# What happened on the topic until a moment ago. Windows move by a minute: a card is used a few times a day, so tiles of
# a minute take it no more room than wider ones, and its last hour is 59 to 60 minutes long. No ttl: a card that is not
# used has a count of 0, which does not grow old.
card_velocity = StreamFeatureView(
    name="card_velocity",
    entities=[card],
    source=KafkaSource(
        name="transactions",
        topic="transactions",
        timestamp_field="event_time",
        message_format=JsonFormat(schema_json=""),
        watermark_delay_threshold=timedelta(minutes=10),  # purchases may come so much later than others
        batch_source=FileSource(
            name="transactions_so_far",
            path="../.sunup/fraud/transactions.parquet",
            timestamp_field="event_timestamp",
        ),
    ),
    schema=[
        Field(name="card_id", dtype=Int64),
        Field(name="card_tx_count_1h", dtype=Int64),
        Field(name="card_amount_sum_24h", dtype=Float64),
    ],
    aggregations=[
        Aggregation(column="amount", function="count", time_window=timedelta(hours=1), name="card_tx_count_1h"),
        Aggregation(column="amount", function="sum", time_window=timedelta(hours=24), name="card_amount_sum_24h"),
    ],
    timestamp_field="event_time",
    enable_tiling=True,
    tiling_hop_size=timedelta(minutes=1),
    tags={"sunup.event_id": "transaction_id"},  # a purchase that comes twice counts once
)

fraud = FeatureService(
    name="fraud",
    features=[card_stats, customer_stats, merchant_stats, card_velocity],
    description="what is known about a card, its owner and the merchant when a purchase is scored",
)

# --- recommend: who looks at what (functions/recommend/history.py) ----------------------------------------------------

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, description="somebody who looks at items")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64, description="an item of the catalogue")

user_stats = FeatureView(
    name="user_stats",
    entities=[user],
    ttl=TTL,
    source=daily("user_stats"),
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="user_views_7d", dtype=Int64),
        Field(name="user_views_28d", dtype=Int64),
        Field(name="user_price_mean_28d", dtype=Float64),
        Field(name="user_price_std_28d", dtype=Float64),
        *(Field(name=f"user_share_{category}", dtype=Float64) for category in range(8)),
    ],
)

item_stats = FeatureView(
    name="item_stats",
    entities=[item],
    ttl=TTL,
    source=daily("item_stats"),
    schema=[
        Field(name="item_id", dtype=Int64),
        Field(name="item_views_1d", dtype=Int64),
        Field(name="item_views_7d", dtype=Int64),
        Field(name="item_views_28d", dtype=Int64),
        Field(name="item_users_28d", dtype=Int64),
        Field(name="item_age_days", dtype=Int64),
        Field(name="item_price", dtype=Float64),
        Field(name="item_category", dtype=Int64),
    ],
)

recommend = FeatureService(
    name="recommend",
    features=[user_stats, item_stats],
    description="what is known about a user and about each item that could be shown",
)
