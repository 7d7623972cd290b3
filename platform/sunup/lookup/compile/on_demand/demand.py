"""On-demand feature views of a service, as a plan has them: what they are given, their code, what they give."""

from collections.abc import Mapping, Sequence
from typing import Any

from feast import FeatureStore
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.transformation.python_transformation import PythonTransformation

from sunup.errors import FeaturesRefused
from sunup.lookup.compile.names import closest
from sunup.lookup.compile.on_demand.source import Code, Refused, maker, read
from sunup.lookup.compile.views import FILLS, Readings, Wanted, feature_of, wanted_view
from sunup.lookup.plan import VALUE_TYPES, Feature, Input, OnDemand
from sunup.types import Field


class Demanded:
    """An on-demand view whose code a worker can run. Raises FeaturesRefused, naming what it cannot."""

    def __init__(self, store: FeatureStore, service: str, wanted: Wanted) -> None:
        self.name = wanted.name
        self.code: Code = _code(wanted.name, wanted.view)
        self.sources = [
            wanted_view(store, service, projection, source=True)
            for _, projection in sorted(wanted.view.source_feature_view_projections.items())  # stored without an order
        ]
        self._wanted = wanted
        self._asked: dict[str, str] = {
            name: kind.name for name, kind in sorted(wanted.view.get_request_data_schema().items())
        }

    def __repr__(self) -> str:
        return f"Demanded({self.name})"

    def features(self, defaults: Mapping[str, Any], *, full: bool) -> tuple[Feature, ...]:
        """What it gives, as far as the service wants it."""
        return tuple(feature_of(self.name, each, defaults, full=full) for each in self._wanted.features)

    def inputs(self, readings: Readings, request: Sequence[Field]) -> tuple[Input, ...]:
        """What its function is given: the request's part, then its sources' features, which are read from now on."""
        fields = {field.name: field.dtype for field in request}
        for name, kind in self._asked.items():
            _check_asked(self.name, name, kind, fields)
        made = [Input((name,), name, kind, asked=True) for name, kind in self._asked.items()]
        short = [each.name for source in self.sources for each in source.features]
        for source in self.sources:
            columns = readings.source(source)
            for each in source.features:
                # As Feast's _preprocess_feature_dict: by short and by full name. A short name of two is nobody's.
                names = dict.fromkeys([f"{source.projection.name}__{each.name}", f"{source.name}__{each.name}"])
                alone = short.count(each.name) == 1 and each.name not in self._asked
                kind = each.dtype.to_value_type().name
                made.append(Input((*([each.name] if alone else []), *names), columns[each.name], kind))
        return tuple(made)

    def planned(
        self, place: int, inputs: tuple[Input, ...], keys: Mapping[str, str], features: tuple[Feature, ...]
    ) -> OnDemand:
        """As the plan has it. `keys`: the request fields that fill join keys and their types, which Feast gives its
        function too."""
        named = {name for each in inputs for name in each.names}
        more = tuple(Input((name,), name, kind, asked=True) for name, kind in keys.items() if name not in named)
        return OnDemand(self.name, maker(place), self._wanted.view.singleton, more + inputs, features)


def _code(name: str, view: OnDemandFeatureView) -> Code:
    reason = ""
    if view.aggregations:
        reason = "declares aggregations, which a worker does not compute. Store them as a feature view, and"
    elif view.mode != "python" or not isinstance(view.feature_transformation, PythonTransformation):
        reason = f'has mode="{view.mode}", and workers run mode="python". Write its function for that, and'
    else:
        try:
            return read(view.feature_transformation.udf_string)
        except Refused as refused:
            reason = str(refused)
    raise FeaturesRefused(f"The on-demand feature view {name} {reason} run `feast apply`.")


def _check_asked(view: str, name: str, kind: str, fields: Mapping[str, str]) -> None:
    listed = kind.endswith("_LIST")
    fills = [f"{dtype}[]" if listed else dtype for dtype in FILLS.get(kind.removesuffix("_LIST"), ())]
    if kind not in VALUE_TYPES:
        reason = f"is {kind}, which workers do not read"
    elif name not in fields:
        reason = (
            f'is not a request field.{closest(name, fields)} Add {name} = "{fills[0]}" to [request] in function.toml'
        )
    elif fields[name] not in fills:
        reason = (
            f"is {kind} in Feast and {fields[name]} in the request. "
            f'Write {name} = "{fills[0]}" under [request] in function.toml'
        )
    else:
        return
    raise FeaturesRefused(f"The input {name} of on-demand feature view {view} {reason}.")
