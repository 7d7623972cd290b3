"""features.json: what a worker must know to read a function's features, and nothing about where they are stored.

The plan is made at deploy time from the Feast registry. Feast's registry digest also covers times and intervals, so
the plan's own digest decides whether two deployments read the same features.
"""

import hashlib
import math
from typing import Any, Final, Literal, TypeAlias

import msgspec

from sunup.errors import BundleDamaged
from sunup.types import Aggregated, Field

VERSION: Final = 1
KEY_VERSION: Final = 3  # the only entity key serialisation Feast still writes
ENTITYLESS_KEY: Final = "__dummy_id"  # join key Feast gives a view without entities; its value is ""

# Feast value type -> (number, dtype). The number is both ValueType's and the field's in feast.types.Value, for all of
# these. A UNIX_TIMESTAMP is served as whole seconds since the epoch, the form it is stored in.
VALUE_TYPES: Final[dict[str, tuple[int, str]]] = {
    "BYTES": (1, "bytes"),
    "STRING": (2, "string"),
    "INT32": (3, "int32"),
    "INT64": (4, "int64"),
    "DOUBLE": (5, "float64"),
    "FLOAT": (6, "float32"),
    "BOOL": (7, "bool"),
    "UNIX_TIMESTAMP": (8, "int64"),
    "BYTES_LIST": (11, "bytes[]"),
    "STRING_LIST": (12, "string[]"),
    "INT32_LIST": (13, "int32[]"),
    "INT64_LIST": (14, "int64[]"),
    "DOUBLE_LIST": (15, "float64[]"),
    "FLOAT_LIST": (16, "float32[]"),
    "BOOL_LIST": (17, "bool[]"),
    "UNIX_TIMESTAMP_LIST": (18, "int64[]"),
}
KEY_TYPES: Final = ("BYTES", "STRING", "INT32", "INT64", "UNIX_TIMESTAMP")

Scalar: TypeAlias = bool | int | float | str
Default: TypeAlias = Scalar | list[Scalar] | None


class JoinKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of an entity key: Feast's join key `name`, filled from the request field `field` ("" for none)."""

    name: str
    field: str
    value_type: str


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stored feature. `column` is the name the model and the reply know it by; `default` None: none declared."""

    name: str
    column: str
    value_type: str
    default: Default = None

    @property
    def dtype(self) -> str:
        return VALUE_TYPES[self.value_type][1]

    @property
    def stand_in(self) -> Any:
        """What a missing value becomes: the declared default, NaN for a float without one, else None (no answer)."""
        if self.dtype in ("float32", "float64"):
            return math.nan if self.default is None else float(self.default)  # type: ignore[arg-type]
        if self.dtype == "bytes" and isinstance(self.default, str):
            return self.default.encode()
        return self.default

    @property
    def field(self) -> Field:
        return Field(self.column, self.dtype, (-1,) if self.dtype.endswith("[]") else ())


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature view. `stored` is its name in the store (with a version suffix where Feast adds one).

    A value older than `ttl_s` or `max_age_s` (seconds; None: no bound) is stale. `cache_s`: seconds for which a value
    that was read may be used again; None: it is read for every call. `aggregated`: how the view is made of events;
    None of any other view.
    """

    name: str
    stored: str
    ttl_s: float | None
    max_age_s: float | None
    features: tuple[Feature, ...]
    cache_s: float | None = None
    aggregated: Aggregated | None = None

    @property
    def age_s_max(self) -> float:
        return min(bound for bound in (self.ttl_s, self.max_age_s, math.inf) if bound is not None)


class Entity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Views that share one entity key. `join_keys` are sorted by name, as Feast serialises them."""

    join_keys: tuple[JoinKey, ...]
    views: tuple[View, ...]


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an on-demand view's function is given of a record, under each of `names`: the value of stored column
    `column`, or of the request field of that name where `asked`."""

    names: tuple[str, ...]
    column: str
    value_type: str
    asked: bool = False


class OnDemand(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An on-demand feature view, worked out in the worker. `maker`: what in features.py gives its function, which takes
    one record's values where it is `singleton`, else lists of all of a call's. `features`: what it gives."""

    name: str
    maker: str
    singleton: bool
    inputs: tuple[Input, ...]
    features: tuple[Feature, ...]


class ReadPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of features.json. `columns`: every feature column, in the order lookups return them.

    `on_demand`: views worked out from the stored ones; their columns come last. `unseen`: stored columns that are read
    for those views only. `code`: SHA-256 of features.py, "" without one. `service`: what the plan was made of.
    """

    version: int
    project: str
    key_version: int
    deadline_ms: float
    on_missing: Literal["default", "reject"]
    entities: tuple[Entity, ...]
    columns: tuple[Field, ...]
    on_demand: tuple[OnDemand, ...] = ()
    unseen: tuple[str, ...] = ()
    code: str = ""
    service: str = ""

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(view for entity in self.entities for view in entity.views)


class _Version(msgspec.Struct):
    version: int


def entity_columns(entities: tuple[Entity, ...]) -> tuple[Field, ...]:
    """The columns of a plan: entity by entity, view by view, feature by feature."""
    return tuple(feature.field for entity in entities for view in entity.views for feature in view.features)


def plan_columns(
    entities: tuple[Entity, ...], on_demand: tuple[OnDemand, ...], unseen: tuple[str, ...]
) -> tuple[Field, ...]:
    """What a lookup returns: the stored columns that are seen, then those of the on-demand views."""
    made = tuple(feature.field for view in on_demand for feature in view.features)
    return tuple(field for field in entity_columns(entities) if field.name not in unseen) + made


def dump(plan: ReadPlan) -> bytes:
    """The bytes of features.json: equal plans give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(plan, order="deterministic"), indent=1) + b"\n"


def digest(plan: ReadPlan) -> str:
    """SHA-256 of `dump(plan)`, in hex."""
    return hashlib.sha256(dump(plan)).hexdigest()


def load(data: bytes) -> ReadPlan:
    """Read features.json. Raises BundleDamaged when it is not a plan this version of Sunup understands."""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            raise BundleDamaged(
                f"features.json has format {version} and this Sunup reads format {VERSION}. Deploy the function again, "
                "or serve the bundle with the Sunup that made it."
            )
        plan = msgspec.json.decode(data, type=ReadPlan)
    except msgspec.DecodeError as error:
        raise BundleDamaged(f"features.json is not a read plan: {error}. Deploy the function again.") from error
    _check(plan)
    return plan


def _check(plan: ReadPlan) -> None:
    """What the types do not say. A plan that fails was not written by `dump`."""
    unknown = [f.value_type for view in plan.views for f in view.features if f.value_type not in VALUE_TYPES]
    made = [feature for view in plan.on_demand for feature in view.features]
    unknown += [each.value_type for each in made if each.value_type not in VALUE_TYPES]
    unknown += [k.value_type for entity in plan.entities for k in entity.join_keys if k.value_type not in KEY_TYPES]
    if plan.key_version != KEY_VERSION:
        unknown.append(f"entity key serialisation {plan.key_version}")
    if not unknown and plan_columns(plan.entities, plan.on_demand, plan.unseen) != plan.columns:
        unknown.append("columns that do not match its views")
    if unknown:
        raise BundleDamaged(f"features.json needs {', '.join(unknown)}, unknown here. Deploy the function again.")
