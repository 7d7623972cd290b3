"""Where [rank] meets the rest of function.toml, and the models: is there a list to rank, a number to rank by, and does
what names candidates name what is looked up?"""

import json
from collections.abc import Mapping, Sequence

import msgspec

from sunup.bundle.declare.lines import Lines, closest
from sunup.bundle.declare.spec import RankSpec, Spec
from sunup.bundle.manifest import Model, Rank, Retrieval
from sunup.errors import UsageError
from sunup.limits import CANDIDATES_MAX
from sunup.types import Field, ResponseField, Tensor

UNSORTED = ("bool", "string", "bytes")  # what is no number to sort by


def request_fields(
    request: Mapping[str, str], rank: RankSpec | None, entities: Mapping[str, str], where: Lines
) -> tuple[Field, ...]:
    """The fields of [request]; the candidates may be left out where a retrieval names them.

    Raises UsageError where [rank] and [features] entities do not go with each other and [request].
    """
    if rank is not None and len(entities) != 1:
        raise where.error(
            "rank",
            "",
            "[rank] needs to know which list holds the candidates: write entities = { item_id = "
            '"candidates" } in [features], the entity key and the list in [request] (just one)',
        )
    if entities and rank is None:
        raise where.error(
            "features",
            "entities",
            "[features] entities makes several rows of a record, and nothing says what becomes of them: add [rank]",
        )
    for item, listed in entities.items():
        dtype = request.get(listed)
        if dtype is None or not dtype.endswith("[]"):
            lists = [name for name, dtype in request.items() if dtype.endswith("[]")]
            message = f"[features] entities {item}: {listed!r} is no list in [request].{closest(listed, lists)}"
            raise where.error("features", "entities", f'{message} A list is written as in {listed} = "int64[]"')
        if item in request:
            raise where.error("features", "entities", f"[features] entities {item}: [request] has a field of that name")
    optional = set(entities.values()) if rank is not None and rank.retrieve else set()
    return tuple(
        Field(name, dtype, (-1,) if dtype.endswith("[]") else (), name in optional) for name, dtype in request.items()
    )


def ranked(spec: Spec, response: Sequence[ResponseField], retrieval: Retrieval | None) -> Rank | None:
    """The manifest's Rank, or None for a function that ranks nothing. Raises UsageError: the response does not fit."""
    if spec.rank is None:
        return None
    listed, item = spec.items
    wide = next((field for field in response if field.shape), None)
    if wide is not None:
        raise UsageError(
            f"[response] {wide.name} of {spec.name} has {list(wide.shape)} values per item, and a ranking function "
            f'answers one each. Name a column in [response], for example {wide.name} = "{wide.output}:1".'
        )
    if item in (field.name for field in response):
        raise UsageError(f"[response] {item} of {spec.name} has the name of the items that are returned. Rename it.")
    by = spec.rank.by
    numbers = [field.name for field in response if field.dtype not in UNSORTED]
    if by not in numbers:
        raise UsageError(
            f"[rank] by = {json.dumps(by)} of {spec.name} is no number of the response.{closest(by, numbers)} There "
            f"are: {', '.join(numbers) or 'none'}."
        )
    return Rank(listed, item, by, spec.rank.top, retrieval)


def retrieval_of(spec: Spec, model: Model, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Retrieval:
    """The manifest's Retrieval. Raises UsageError where the model does not name candidates for this function."""
    listed, _ = spec.items
    given = {field.name: field.dtype for field in spec.request if not field.dtype.endswith("[]")}
    kind = next(field.dtype for field in spec.request if field.name == listed).removesuffix("[]")
    for name in (name for tensor in inputs for name in tensor.columns):
        if name not in given:
            raise UsageError(
                f"The retrieval {model.name} of {spec.name} takes `{name}`, which is no single value in [request]."
                f"{closest(name, given)} It can take: {', '.join(given) or 'none'}."
            )
    if len(outputs) != 1 or len(outputs[0].shape) != 2 or outputs[0].dtype != kind:
        shown = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.shape)}" for tensor in outputs)
        raise UsageError(
            f"The retrieval {model.name} of {spec.name} must have one output, {kind} [-1, k]: the candidates of each "
            f"record. It has {shown}."
        )
    if outputs[0].shape[1] == 0 or outputs[0].shape[1] > CANDIDATES_MAX:
        raise UsageError(
            f"The retrieval {model.name} of {spec.name} names {outputs[0].shape[1]} candidates, and 1 to "
            f"{CANDIDATES_MAX} are ranked. Take the best of them inside the model."
        )
    return Retrieval(msgspec.structs.replace(model), tuple(inputs), outputs[0])
