"""What had just happened to a card when it was used, for every purchase of the past: what the stream gives its scores.

What the features are is said once, in features/views.py (card_velocity).
"""

from typing import Final

import numpy as np
import pandas as pd

from features import views
from sunup.lookup.compile.streamed import aggregated_of
from sunup.stream.aggregate.history import History, point_in_time
from sunup.types import Aggregated

VIEW: Final = "card_velocity"
VELOCITY: Final = ("card_tx_count_1h", "card_amount_sum_24h")


def spec() -> Aggregated:
    """How the view is made of purchases."""
    return aggregated_of(views.card_velocity)


def velocity(purchases: pd.DataFrame) -> pd.DataFrame:
    """`purchases` (card_id, event_timestamp, what is aggregated; in order) with VELOCITY as of just before each one.

    Give it all there were: what is left out is missing in the features of the others.
    """
    how = spec()
    history = History(
        entity=purchases["card_id"].to_numpy(),
        time=purchases["event_timestamp"].dt.as_unit("us").astype(np.int64).to_numpy() / 1e6,
        values={name: purchases[name].to_numpy(np.float64) for name in how.columns},
    )
    return purchases.assign(**point_in_time(how, history))
