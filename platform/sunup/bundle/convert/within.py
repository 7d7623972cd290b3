"""Our own converters inside skl2onnx: tree models with exact thresholds, and the common steps whose stock form is
float32 only or needlessly long (logistic regression, imputing)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import lightgbm
import numpy as np
import onnx
import skl2onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import ClassifierMixin, is_classifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression

from sunup.bundle.convert.graph import ELEMENT, OPSET, STOCK_ML, Nodes
from sunup.bundle.convert.trees import families
from sunup.bundle.convert.trees import sklearn as sklearn_trees
from sunup.bundle.convert.trees import xgboost as xgboost_family
from sunup.bundle.convert.trees.forest import ML
from sunup.bundle.convert.trees.model import add_complement, add_label
from sunup.errors import ConversionRefused

# skl2onnx refuses the newest ai.onnx.ml operators; ours stand in this domain until it is done.
_OURS: Final = "ours"

Hook = Callable[[Any, Any, Any], None]


class OwnModel(Protocol):
    """A model we write ourselves. `classes` is None for a regression."""

    @property
    def classes(self) -> NDArray[Any] | None: ...

    def add(self, nodes: Nodes, x: str) -> str:
        """Add the model over the float64 matrix `x`: probabilities [rows, classes] or predictions [rows, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Logistic:
    """Logistic regression: sigmoid of one score for two classes, softmax of one per class for more."""

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    classes: NDArray[Any] | None

    def add(self, nodes: Nodes, x: str) -> str:
        """See OwnModel."""
        scores = nodes.add("Add", nodes.add("MatMul", x, nodes.constant(self.weights)), nodes.constant(self.intercept))
        if self.weights.shape[1] == 1:
            return add_complement(nodes, nodes.add("Sigmoid", scores))
        return nodes.add("Softmax", scores, axis=1)


def own_model(model: Any, float32_columns: NDArray[np.bool_]) -> OwnModel | None:
    """An estimator we write ourselves, else None."""
    if type(model) is LogisticRegression and model.coef_.shape[0] in (1, len(model.classes_)):
        return Logistic(model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64), model.classes_)
    return families.tree_model(model, float32_columns)


def is_plain_imputer(step: Any) -> bool:
    """Whether a step does no more than put one number per column where a value is missing."""
    return (
        type(step) is SimpleImputer
        and not step.add_indicator
        and isinstance(step.missing_values, float)
        and np.isnan(step.missing_values)
        and step.statistics_.dtype.kind == "f"
        and not np.isnan(step.statistics_).any()
    )


def hooks(ml: int) -> tuple[Mapping[type, Hook], Mapping[type, Callable[[Any], None]]]:
    """skl2onnx's custom converters and shape calculators, by estimator type. `ml`: the ai.onnx.ml version to write."""

    def write(scope: Any, operator: Any, container: Any) -> None:
        _write(_Within(scope, container, ml), operator)

    def impute(scope: Any, operator: Any, container: Any) -> None:
        floats = isinstance(operator.outputs[0].type, DoubleTensorType | FloatTensorType)
        if floats and is_plain_imputer(operator.raw_operator):
            _write_imputer(_Within(scope, container, ml), operator)
        else:
            get_converter("SklearnSimpleImputer")(scope, operator, container)

    own = (*sklearn_trees.ALL, LogisticRegression, *_register_boosters())
    return dict.fromkeys(own, write) | {SimpleImputer: impute}, dict.fromkeys(own, _shape)


def settle(model: onnx.ModelProto, ml: int) -> None:
    """Move the nodes we wrote into ai.onnx.ml `ml`, once skl2onnx has let go of the model."""
    versions = {opset.domain: opset.version for opset in model.opset_import if opset.domain != _OURS}
    for node in model.graph.node:
        if node.domain == _OURS:
            node.domain, versions[ML] = ML, ml
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, versions[domain]) for domain in sorted(versions))


class _Within:
    """The graph skl2onnx is writing, as a place for nodes."""

    def __init__(self, scope: Any, container: Any, ml: int) -> None:
        self._scope, self._container, self.ml = scope, container, ml

    def add(self, op: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        name = output or self._scope.get_unique_variable_name("own")
        version = 1 if domain else onnx.defs.get_schema(op, OPSET).since_version
        self._container.add_node(
            op,
            list(inputs),
            [name],
            op_domain=_OURS if domain else "",
            op_version=version,
            name=self._scope.get_unique_operator_name(op),
            **attributes,
        )
        return str(name)

    def constant(self, array: NDArray[Any]) -> str:
        name = self._scope.get_unique_variable_name("constant")
        self._container.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return str(name)


def _write(nodes: _Within, operator: Any) -> None:
    x = _matrix(nodes, operator)
    estimator = operator.raw_operator
    model = own_model(estimator, np.zeros(estimator.n_features_in_, dtype=np.bool_))
    if model is None:
        kind = type(estimator).__name__
        raise ConversionRefused(f"This {kind} has several targets, categorical splits or a start value per row.")
    answer = model.add(nodes, x)
    *label, out = [variable.full_name for variable in operator.outputs]
    single = isinstance(operator.outputs[-1].type, FloatTensorType)
    if single:
        nodes.add("Cast", answer, output=out, to=TensorProto.FLOAT)
    else:
        nodes.add("Identity", answer, output=out)
    if model.classes is not None:
        add_label(nodes, answer, _as_declared(model.classes), output=label[0])


def _as_declared(classes: NDArray[Any]) -> NDArray[Any]:
    # skl2onnx declares every label that is no text an int64, and checks it.
    return classes.astype(np.int64) if classes.dtype.kind in "bf" else classes


def _write_imputer(nodes: _Within, operator: Any) -> None:
    x = _matrix(nodes, operator)
    filled = nodes.add("Where", nodes.add("IsNaN", x), nodes.constant(operator.raw_operator.statistics_), x)
    out = operator.outputs[0]
    element = ELEMENT["float32" if isinstance(out.type, FloatTensorType) else "float64"]
    nodes.add("Cast", filled, output=out.full_name, to=element)


def _matrix(nodes: _Within, operator: Any) -> str:
    """The operator's input as one float64 matrix."""
    names = []
    for variable in operator.inputs:
        name = str(variable.full_name)
        double = isinstance(variable.type, DoubleTensorType)
        names.append(name if double else nodes.add("Cast", name, to=TensorProto.DOUBLE))
    return names[0] if len(names) == 1 else nodes.add("Concat", *names, axis=1)


def _shape(operator: Any) -> None:
    if is_classifier(operator.raw_operator):
        calculate_linear_classifier_output_shapes(operator)
    else:
        calculate_linear_regressor_output_shapes(operator)
    kind = FloatTensorType if isinstance(operator.inputs[0].type, FloatTensorType) else DoubleTensorType
    operator.outputs[-1].set_type(kind(operator.outputs[-1].type.shape))


def _register_boosters() -> tuple[type, ...]:
    """Make the boosting libraries' estimators known to skl2onnx, which has a list of scikit-learn's own only."""
    kinds = (lightgbm.LGBMClassifier, lightgbm.LGBMRegressor, *xgboost_family.ESTIMATORS)
    classifying = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
    for kind in kinds:
        options = classifying if issubclass(kind, ClassifierMixin) else None
        skl2onnx.update_registered_converter(kind, kind.__name__, _shape, _hook, options=options)
    return kinds


def _hook(scope: Any, operator: Any, container: Any) -> None:
    # hooks() takes precedence; this is what an estimator that was only registered would do.
    _write(_Within(scope, container, STOCK_ML), operator)
