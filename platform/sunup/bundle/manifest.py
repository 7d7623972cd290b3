"""manifest.json: what a bundle is. A bundle's digest is the SHA-256 of its manifest, which holds the digest of every
other file, so one comparison covers every byte. No time, host or path appears in it: same inputs, same digest."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from sunup.limits import (
    BODY_BYTES_DEFAULT,
    IDLE_TO_ZERO_SECONDS_DEFAULT,
    QUEUE_DEFAULT,
    SERVED_ROTATE_SECONDS_DEFAULT,
    SERVED_SIZE_BYTES_DEFAULT,
    TIMEOUT_SECONDS_DEFAULT,
    WARM_SECONDS_DEFAULT,
)
from sunup.types import CacheSpec, Field, ImageSpec, ResponseField, Tensor

FORMAT: Final = 1
FEATURES: Final = "features.json"  # the read plan
FEATURES_CODE: Final = "features.py"  # functions of on-demand feature views


class Model(msgspec.Struct, frozen=True):
    """The registered model a bundle was made from. `flavor`: sklearn, lightgbm, onnx, ..."""

    name: str
    version: str
    run_id: str
    flavor: str


class Warm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of [scale] warm: at least `min` workers for `for_s` seconds from each time of `cron` on."""

    cron: str
    min: int = 1
    for_s: float = WARM_SECONDS_DEFAULT


class Scale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[scale] of function.toml. `idle_s`: seconds of silence before the last worker ends. `idle_auto`: they are
    learned, and `idle_s` holds for stream workers and while nothing is known."""

    min: int = 0
    max: int = 4
    idle_s: float = IDLE_TO_ZERO_SECONDS_DEFAULT
    target_concurrency: int = 32
    queue_max: int = QUEUE_DEFAULT
    idle_auto: bool = False
    warm: tuple[Warm, ...] = ()


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[limits] of function.toml."""

    body_bytes: int = BODY_BYTES_DEFAULT
    timeout_s: float = TIMEOUT_SECONDS_DEFAULT


class Kubernetes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[kubernetes] of function.toml. `cpu`, `memory`: quantities as Kubernetes writes them, "" for the default: what a
    pod asks for; of memory also the most it may use. `visibility`: who can reach it. `gpu`: how many GPUs it has."""

    cpu: str = ""
    memory: str = ""
    visibility: Literal["public", "cluster"] = "public"
    gpu: int = 0


_TOPIC: Final = r"^[a-zA-Z0-9._-]{0,249}$"  # what Kafka takes for a name; "" is resolved from the function's name


class SecuritySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[stream.security] of function.toml: how Kafka brokers let the function in.

    No secret is in it, only where one is: "env:NAME" (the deployer's environment) or "file:/path" (read by the worker);
    `username` may be the name itself. `ca`, `certificate`, `key`: PEM files, from the project folder or absolute; ""
    where none is wanted.
    """

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    key_password: str = ""
    check_hostname: bool = True


class StreamSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[stream] of function.toml.

    `broker`: "host:port,host:port", "env:NAME" (the deployer's environment), "embedded", or "env:NAME or embedded".
    `output`, `dead_letter` and `group` (what remembers how far the function has read) default to <function>-scores,
    <function>-dead and sunup-<function>. `schema_registry`: where schemas of records in Confluent's wire format are, a
    URL without a password, "env:NAME" or "file:/path"; "" for none. `aggregate`: the stream feature views the function
    aggregates, by their names in its feature service; None: all that are made of `input`.
    """

    broker: str
    input: Annotated[str, msgspec.Meta(pattern=_TOPIC, min_length=1)]
    output: Annotated[str, msgspec.Meta(pattern=_TOPIC)] = ""
    dead_letter: Annotated[str, msgspec.Meta(pattern=_TOPIC)] = ""
    group: Annotated[str, msgspec.Meta(pattern=_TOPIC)] = ""
    content: Literal["auto", "json", "cloudevent", "image", "confluent"] = "auto"
    guarantee: Literal["exactly-once", "at-least-once"] = "exactly-once"
    max_workers: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    security: SecuritySpec | None = None
    schema_registry: str = ""
    aggregate: tuple[Annotated[str, msgspec.Meta(min_length=1)], ...] | None = None


class HandlerSpec(msgspec.Struct, frozen=True):
    """The function's own code, handler.py in the bundle. `hooks`: those it has; `outputs`: what the model's outputs are
    called when postprocess gets them."""

    hooks: tuple[str, ...]
    outputs: tuple[ResponseField, ...]


class Retrieval(msgspec.Struct, frozen=True):
    """The registered model that names the candidates of a record without any: `inputs` are filled from request fields,
    `output` is [-1, k] item ids. Its files are retrieve.onnx, retrieve.npz and retrieve.json."""

    model: Model
    inputs: tuple[Tensor, ...]
    output: Tensor


class Rank(msgspec.Struct, frozen=True):
    """How a record with a list of candidates is answered. `list`: the request field that holds them; `item`: what one
    of them is called in a row of the model run and in the reply; `by`: the response field to sort by, best first;
    `top`: how many are returned at most."""

    list: str
    item: str
    by: str
    top: int
    retrieval: Retrieval | None = None


class LogSpec(msgspec.Struct, frozen=True):
    """[features] log of function.toml: keep what the model saw. `path`: below the project folder; a file holds
    `rotate_s` seconds or `size` bytes (as they are spooled) of it; `sample`: the share of calls that are kept."""

    path: str
    rotate_s: float = SERVED_ROTATE_SECONDS_DEFAULT
    size: int = SERVED_SIZE_BYTES_DEFAULT
    sample: float = 1.0


class Manifest(msgspec.Struct, frozen=True):
    """The contents of manifest.json.

    `request`: fields callers send, in row order; `image`: which of them is an image, if one is. `inputs`: model inputs;
    each column is a request field or a feature. `response`: fields made of each row of a model run. `example`: one
    request record that can be sent as it is. `files`: name -> SHA-256. `accept_difference`: beyond the tolerance, what
    was accepted of the conversion; 0 where the tolerance was kept. `aggregates`: stream feature views it aggregates,
    each as Feast's project, a slash and its name in the online store; no other function may. `beside`: what records
    may hold beside the request fields, of use to those views alone.
    """

    format: int
    sunup: str
    function: str
    model: Model
    request: tuple[Field, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    response: tuple[ResponseField, ...]
    tolerance: float
    scale: Scale
    limits: Limits
    example: dict[str, msgspec.Raw | object]
    files: dict[str, str]
    stream: StreamSpec | None = None
    accept_difference: float = 0.0
    handler: HandlerSpec | None = None
    image: ImageSpec | None = None
    rank: Rank | None = None
    cache: CacheSpec | None = None
    log: LogSpec | None = None
    aggregates: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    kubernetes: Kubernetes | None = None

    @property
    def rows(self) -> tuple[Field, ...]:
        """The request fields as a row of the model run has them: one item in the place of the list."""
        return self.request if self.rank is None else row_fields(self.request, self.rank.list, self.rank.item)

    @property
    def answers(self) -> tuple[ResponseField, ...]:
        """The response fields as callers get them: of a ranking function, lists, the items first."""
        if self.rank is None:
            return self.response
        item = next(field for field in self.rows if field.name == self.rank.item)
        made = (ResponseField(item.name, item.dtype), *self.response)
        return tuple(msgspec.structs.replace(field, dtype=f"{field.dtype}[]", shape=(-1,)) for field in made)


def row_fields(request: Sequence[Field], list_name: str, item: str) -> tuple[Field, ...]:
    """`request` with the list `list_name` replaced by one element of it, called `item`."""
    return tuple(Field(item, field.dtype.removesuffix("[]")) if field.name == list_name else field for field in request)
