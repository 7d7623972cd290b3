"""What is known of patients: laboratory values in the store, and what is worked out of them and of the call."""

from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64

patient = Entity(name="patient", join_keys=["patient_id"], value_type=ValueType.INT64)

labs = FeatureView(
    name="labs",
    entities=[patient],
    ttl=timedelta(days=90),
    source=FileSource(name="labs_file", path="data/labs.parquet", timestamp_field="event_timestamp"),
    schema=[
        Field(name="patient_id", dtype=Int64),
        Field(name="cholesterol", dtype=Float64),
        Field(name="ldl", dtype=Float64),
        Field(name="hdl", dtype=Float64),
        Field(name="triglycerides_log", dtype=Float64),
        Field(name="glucose", dtype=Float64),
    ],
)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[labs, RequestSource(name="visit", schema=[Field(name="bmi", dtype=Float64)])],
    schema=[Field(name="ldl_share", dtype=Float64), Field(name="bmi_glucose", dtype=Float64)],
    mode="python",
)
def worked_out(inputs: dict[str, Any]) -> dict[str, Any]:
    """In training Feast runs it on all rows; in serving the worker does, on those of a call."""
    shares = zip(inputs["ldl"], inputs["cholesterol"], strict=True)
    weighed = zip(inputs["bmi"], inputs["glucose"], strict=True)
    return {
        "ldl_share": [ldl / whole if ldl is not None and whole else None for ldl, whole in shares],
        "bmi_glucose": [bmi * glucose / 100 if glucose is not None else None for bmi, glucose in weighed],
    }


progression = FeatureService(name="progression", features=[labs, worked_out])
