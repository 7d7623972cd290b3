"""Our own converters inside skl2onnx: tree models with exact thresholds, and the common steps whose stock form is
float32 only or needlessly long (linear models, kernels, imputing)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import lightgbm
import numpy as np
import onnx
import skl2onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.base import ClassifierMixin
from sklearn.svm import LinearSVC

from sunup.bundle.convert.answers import kind_of
from sunup.bundle.convert.graph import OPSET, STOCK_ML
from sunup.bundle.convert.sklearn import closed, steps
from sunup.bundle.convert.sklearn.closed import OwnModel, own_formula
from sunup.bundle.convert.trees import families
from sunup.bundle.convert.trees import sklearn as sklearn_trees
from sunup.bundle.convert.trees import xgboost as xgboost_family
from sunup.bundle.convert.trees.forest import ML
from sunup.bundle.convert.trees.model import add_detection, add_label
from sunup.errors import ConversionRefused

# skl2onnx refuses the newest ai.onnx.ml operators; ours stand in this domain until it is done.
_OURS: Final = "ours"

Hook = Callable[[Any, Any, Any], None]


def own_model(model: Any, float32_columns: NDArray[np.bool_]) -> OwnModel | None:
    """An estimator we write ourselves, else None."""
    return own_formula(model) or families.tree_model(model, float32_columns)


def hooks(ml: int, more: Sequence[type]) -> tuple[Mapping[type, Hook], Mapping[type, Callable[[Any], None]]]:
    """skl2onnx's custom converters and shape calculators, by estimator type. `ml`: the ai.onnx.ml version to write;
    `more`: estimators of other libraries that stand in the model.
    """

    def write(scope: Any, operator: Any, container: Any) -> None:
        _write(_Within(scope, container, ml), operator)

    def step(scope: Any, operator: Any, container: Any) -> None:
        _write_step(_Within(scope, container, ml), operator)

    own = (*sklearn_trees.ALL, *closed.ALL, *_register(more))
    writers = dict.fromkeys(own, write) | dict.fromkeys(steps.ALL, step)
    return writers, dict.fromkeys(own, _shape) | dict.fromkeys(steps.ALL, _step_shape)


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
        self.scope, self.container, self.ml = scope, container, ml

    def add(self, op: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        name = output or self.scope.get_unique_variable_name("own")
        version = 1 if domain else onnx.defs.get_schema(op, OPSET).since_version
        self.container.add_node(
            op,
            list(inputs),
            [name],
            op_domain=_OURS if domain else "",
            op_version=version,
            name=self.scope.get_unique_operator_name(op),
            **attributes,
        )
        return str(name)

    def constant(self, array: NDArray[Any]) -> str:
        name = self.scope.get_unique_variable_name("constant")
        self.container.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return str(name)


def _write(nodes: _Within, operator: Any) -> None:
    x = _matrix(nodes, operator)
    estimator = operator.raw_operator
    model = own_model(estimator, np.zeros(estimator.n_features_in_, dtype=np.bool_))
    if model is None:
        if type(estimator) in closed.ALL and (stock := get_converter(f"Sklearn{type(estimator).__name__}")):
            stock(nodes.scope, operator, nodes.container)
            return
        kind = type(estimator).__name__
        raise ConversionRefused(
            f"This {kind} has several targets, categorical splits, a start value per row or random answers."
        )
    answer = model.add(nodes, x)
    *label, out = [variable.full_name for variable in operator.outputs]
    kind = kind_of(estimator)
    if kind == "clusterer":
        nodes.add("Reshape", answer, nodes.constant(np.array([-1])), output=label[0])
    single = isinstance(operator.outputs[-1].type, FloatTensorType)
    if single or kind == "clusterer":
        nodes.add("Cast", answer, output=out, to=TensorProto.FLOAT if single else TensorProto.DOUBLE)
    else:
        nodes.add("Identity", answer, output=out)
    if kind == "detector":
        add_detection(nodes, answer, label[0])
    if model.classes is not None:
        add_label(nodes, answer, _as_declared(model.classes), output=label[0])


def _as_declared(classes: NDArray[Any]) -> NDArray[Any]:
    # skl2onnx declares every label that is no text an int64, and checks it.
    return classes.astype(np.int64) if classes.dtype.kind in "bf" else classes


def _write_step(nodes: _Within, operator: Any) -> None:
    own = steps.own_step(operator.raw_operator, text=_is_text(operator))
    if own is None:
        get_converter(sklearn_operator_name_map[type(operator.raw_operator)])(nodes.scope, operator, nodes.container)
        return
    names = [str(variable.full_name) for variable in operator.inputs]
    if _is_text(operator):
        x = names[0] if len(names) == 1 else nodes.add("Concat", *names, axis=1)
    else:
        x = _matrix(nodes, operator)
    answer, out = own.write(nodes, x), operator.outputs[0]
    if isinstance(out.type, FloatTensorType):
        nodes.add("Cast", answer, output=out.full_name, to=TensorProto.FLOAT)
    else:
        nodes.add("Identity", answer, output=out.full_name)


def _step_shape(operator: Any) -> None:
    kind = type(operator.raw_operator)
    own = steps.own_step(operator.raw_operator, text=_is_text(operator))
    if own is None and kind in sklearn_operator_name_map:
        get_shape_calculator(sklearn_operator_name_map[kind])(operator)
    elif own is None:
        raise ValueError(f"there is no converter for this {kind.__name__}")
    elif own.text:
        operator.outputs[0].set_type(StringTensorType([None, own.width]))
    else:
        floats = FloatTensorType if isinstance(operator.inputs[0].type, FloatTensorType) else DoubleTensorType
        operator.outputs[0].set_type(floats([None, own.width]))


def _is_text(operator: Any) -> bool:
    return all(isinstance(variable.type, StringTensorType) for variable in operator.inputs)


def _matrix(nodes: _Within, operator: Any) -> str:
    """The operator's input as one float64 matrix."""
    names = []
    for variable in operator.inputs:
        name = str(variable.full_name)
        double = isinstance(variable.type, DoubleTensorType)
        names.append(name if double else nodes.add("Cast", name, to=TensorProto.DOUBLE))
    return names[0] if len(names) == 1 else nodes.add("Concat", *names, axis=1)


def _shape(operator: Any) -> None:
    kind = kind_of(operator.raw_operator)
    if kind == "classifier":
        calculate_linear_classifier_output_shapes(operator)
    elif kind == "regressor":
        calculate_linear_regressor_output_shapes(operator)
    else:
        operator.outputs[0].set_type(Int64TensorType([None]))
        operator.outputs[-1].type.shape = [None, 1]
    floats = FloatTensorType if isinstance(operator.inputs[0].type, FloatTensorType) else DoubleTensorType
    operator.outputs[-1].set_type(floats(operator.outputs[-1].type.shape))


def _register(more: Sequence[type]) -> tuple[type, ...]:
    """Make estimators known to skl2onnx that it does not know: it has a list of most of scikit-learn's own only."""
    others = (lightgbm.LGBMClassifier, lightgbm.LGBMRegressor, *xgboost_family.ESTIMATORS, *more)
    classifying = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
    unknown = [kind for kind in closed.ALL if kind is LinearSVC or kind not in sklearn_operator_name_map]
    for kind in (*others, *unknown):
        classifier = issubclass(kind, ClassifierMixin)
        options = classifying if classifier or kind in more else None
        # skl2onnx looks at the base classes; CatBoost's classifier only says what it is.
        parser = None if classifier or kind not in more else _parse
        skl2onnx.update_registered_converter(kind, f"Own{kind.__name__}", _shape, _hook, options=options, parser=parser)
    for kind in steps.ALL:
        if kind not in sklearn_operator_name_map:
            skl2onnx.update_registered_converter(kind, f"Own{kind.__name__}", _step_shape, _hook)
    return others


def _parse(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ARG001 - as it is called
    """Declare a model's operator and outputs; a classifier has two."""
    operator = scope.declare_local_operator(f"Own{type(model).__name__}", model)
    operator.inputs = inputs
    if kind_of(model) == "classifier":
        operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
    operator.outputs.append(scope.declare_local_variable("answer", DoubleTensorType()))
    return operator.outputs


def _hook(scope: Any, operator: Any, container: Any) -> None:
    # hooks() takes precedence; this is what an estimator that was only registered would do.
    _write(_Within(scope, container, STOCK_ML), operator)
