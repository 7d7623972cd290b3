"""What a function's owner declares, as one frozen value. file.py reads it from function.toml."""

import re
from typing import Annotated, Final, Literal

import msgspec

from sunup.bundle.manifest import Kubernetes, Limits, LogSpec, Scale, StreamSpec, row_fields
from sunup.limits import CANDIDATES_MAX, FEATURE_DEADLINE_MS_DEFAULT
from sunup.types import CacheSpec, Decision, Field, ImageSpec

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")  # what link/route.py takes for a name
BROKER: Final = re.compile(r"embedded|env:\w+( or embedded)?|[^\s,:]+:\d+(,[^\s,:]+:\d+)*")
FOLDER: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?$"  # below a project; none is hidden
TOLERANCE_DEFAULT: Final = 1e-5  # largest absolute difference of a probability; relative above 1 for regressions

Scalar = str | bool | int | float


class FeatureSpec(msgspec.Struct, frozen=True):
    """[features]: the Feast feature service to read and what to do when it has no fresh value.

    `max_age_s`: feature view -> seconds beyond which a value counts as missing. `defaults`: feature column -> value.
    `cache_s`: feature view -> seconds for which a value that was read may be used again.
    `entities`: entity key -> the request list whose elements it takes, one row each (of a ranking function).
    `log`: the served-feature log, None where none is wanted.
    """

    service: str
    deadline_ms: float = FEATURE_DEADLINE_MS_DEFAULT
    on_missing: Literal["default", "reject"] = "default"
    defaults: dict[str, Scalar] = {}
    max_age_s: dict[str, float] = {}
    entities: dict[str, str] = {}
    cache_s: dict[str, float] = {}
    log: LogSpec | None = None


class ResponseSpec(msgspec.Struct, frozen=True):
    """One entry of [response]: `source` is "label" or "probability:1" (output, optional column), or a decision."""

    name: str
    source: str = ""
    decision: Decision | None = None


class RankSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[rank]: sort a record's candidates by the response field `by`, return the best `top`. `retrieve`: a registered
    model (NAME, NAME-v3, NAME@alias) that names the candidates of a record that has none."""

    by: Annotated[str, msgspec.Meta(min_length=1)]
    top: Annotated[int, msgspec.Meta(ge=1, le=CANDIDATES_MAX)] = 10
    retrieve: str = ""


class Spec(msgspec.Struct, frozen=True):
    """A function as declared. `request`: the fields callers send, in order. No response: every model output is sent.

    `trusted`: types the model's skops file may name beyond those known here, as "package.module.Type".
    """

    name: str
    model: str
    request: tuple[Field, ...]
    features: FeatureSpec | None = None
    response: tuple[ResponseSpec, ...] = ()
    tolerance: float = TOLERANCE_DEFAULT
    scale: Scale = Scale()
    limits: Limits = Limits()
    stream: StreamSpec | None = None
    trusted: tuple[str, ...] = ()
    image: ImageSpec | None = None
    rank: RankSpec | None = None
    cache: CacheSpec | None = None
    kubernetes: Kubernetes | None = None

    @property
    def items(self) -> tuple[str, str]:
        """Of a ranking function: the request list, and what an element of it is called."""
        assert self.features is not None, "file.py refuses [rank] without [features] entities"
        ((item, listed),) = self.features.entities.items()
        return listed, item

    @property
    def rows(self) -> tuple[Field, ...]:
        """The request fields as rows of the model run have them."""
        return self.request if self.rank is None else row_fields(self.request, *self.items)
