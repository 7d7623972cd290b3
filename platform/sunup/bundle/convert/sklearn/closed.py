"""Estimators whose answer is a formula short enough to write ourselves, in float64: skl2onnx has no converter for them,
or one for float32 only, or one that loses digits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.covariance import EllipticEnvelope
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.svm import SVR, LinearSVC, NuSVR, OneClassSVM

from sunup.bundle.convert.graph import Nodes
from sunup.bundle.convert.trees.model import add_complement

Floats = NDArray[np.float64]

ALL: Final = (
    DummyClassifier,
    DummyRegressor,
    EllipticEnvelope,
    KernelRidge,
    KMeans,
    LinearSVC,
    LogisticRegression,
    MiniBatchKMeans,
    NuSVR,
    OneClassSVM,
    RidgeClassifier,
    RidgeClassifierCV,
    SVR,
)


class OwnModel(Protocol):
    """A model we write ourselves. `classes` is None for what is no classifier."""

    @property
    def classes(self) -> NDArray[Any] | None: ...

    def add(self, nodes: Nodes, x: str) -> str:
        """Add the model over the float64 matrix `x`: the largest of [rows, classes] is the class (probabilities, or
        scores of a classifier without any); predictions, outlier scores or cluster numbers [rows, 1].
        """
        ...


@dataclass(frozen=True, slots=True)
class Formula:
    """A model as the function that writes it."""

    write: Callable[[Nodes, str], str]
    classes: NDArray[Any] | None = None

    def add(self, nodes: Nodes, x: str) -> str:
        """See OwnModel."""
        return self.write(nodes, x)


def own_formula(model: Any) -> OwnModel | None:
    """The formula of a fitted estimator of one of ALL (subclasses may answer otherwise); None when it has no such."""
    kind = type(model)
    if kind in (RidgeClassifier, RidgeClassifierCV, LinearSVC, LogisticRegression):
        return _linear(model)
    if kind in (SVR, NuSVR, OneClassSVM, KernelRidge):
        return _kernel_machine(model)
    if kind in (KMeans, MiniBatchKMeans):
        return _nearest_centre(model)
    if kind is EllipticEnvelope:
        return _elliptic(model)
    return _constant(model) if kind in (DummyClassifier, DummyRegressor) else None


def _linear(model: Any) -> Formula | None:
    """One score for two classes, one per class for more; logistic regression makes probabilities of them."""
    classes, weights = model.classes_, model.coef_.T.astype(np.float64)
    if weights.ndim != 2 or weights.shape[1] not in (1, len(classes)):
        return None
    intercept = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), weights.shape[1])

    def write(nodes: Nodes, x: str) -> str:
        scores = nodes.add("Add", nodes.add("MatMul", x, nodes.constant(weights)), nodes.constant(intercept))
        single = weights.shape[1] == 1
        if type(model) is LogisticRegression and single:
            return add_complement(nodes, nodes.add("Sigmoid", scores))
        if type(model) is LogisticRegression:
            return nodes.add("Softmax", scores, axis=1)
        return nodes.add("Concat", nodes.add("Neg", scores), scores, axis=1) if single else scores

    return Formula(write, classes)


def _kernel_machine(model: Any) -> Formula | None:
    if isinstance(model, KernelRidge):
        vectors, weights, intercept = model.X_fit_, np.asarray(model.dual_coef_), 0.0
        gamma = model.gamma if model.gamma is not None else 1.0 / model.n_features_in_
    else:
        vectors, weights, intercept = model.support_vectors_, np.asarray(model.dual_coef_).T, float(model.intercept_[0])
        gamma = model._gamma
    if not isinstance(vectors, np.ndarray) or (weights.ndim == 2 and weights.shape[1] != 1):
        return None
    kernel = _kernel(model.kernel, vectors.astype(np.float64), float(gamma), float(model.coef0), int(model.degree))
    column = weights.astype(np.float64).reshape(-1, 1)

    def write(nodes: Nodes, x: str) -> str:
        assert kernel is not None
        total = nodes.add("MatMul", kernel(nodes, x), nodes.constant(column))
        return nodes.add("Add", total, nodes.constant(np.array(intercept)))

    return Formula(write) if kernel else None


def _kernel(name: Any, vectors: Floats, gamma: float, offset: float, degree: int) -> Callable[[Nodes, str], str] | None:
    """[rows, features] -> [rows, vectors]."""

    def product(nodes: Nodes, x: str) -> str:
        return nodes.add("MatMul", x, nodes.constant(np.ascontiguousarray(vectors.T)))

    def scaled(nodes: Nodes, x: str) -> str:
        times = nodes.add("Mul", product(nodes, x), nodes.constant(np.array(gamma)))
        return nodes.add("Add", times, nodes.constant(np.array(offset)))

    def rbf(nodes: Nodes, x: str) -> str:
        squares = nodes.add("ReduceSumSquare", x, nodes.constant(np.array([1])), keepdims=1)
        both = nodes.add("Add", squares, nodes.constant((vectors**2).sum(axis=1)))
        twice = nodes.add("Mul", product(nodes, x), nodes.constant(np.array(2.0)))
        apart = nodes.add("Sub", both, twice)
        # Squares of huge values are infinite, and so is what is left of infinities here: infinitely far.
        far = nodes.add("Where", nodes.add("IsNaN", apart), nodes.constant(np.array(np.inf)), apart)
        near = nodes.add("Max", far, nodes.constant(np.array(0.0)))
        return nodes.add("Exp", nodes.add("Mul", near, nodes.constant(np.array(-gamma))))

    def poly(nodes: Nodes, x: str) -> str:
        return nodes.add("Pow", scaled(nodes, x), nodes.constant(np.array(float(degree))))

    def sigmoid(nodes: Nodes, x: str) -> str:
        return nodes.add("Tanh", scaled(nodes, x))

    known = {"linear": product, "rbf": rbf, "poly": poly, "polynomial": poly, "sigmoid": sigmoid}
    return known.get(name) if isinstance(name, str) else None


def _nearest_centre(model: Any) -> Formula:
    """The least |c|^2 - 2 x c, as scikit-learn does: without |x|^2, which is the same for all."""
    centres = model.cluster_centers_.astype(np.float64)

    def write(nodes: Nodes, x: str) -> str:
        product = nodes.add("MatMul", x, nodes.constant(np.ascontiguousarray(-2.0 * centres.T)))
        apart = nodes.add("Add", product, nodes.constant((centres**2).sum(axis=1)))
        return nodes.add("ArgMin", apart, axis=1, keepdims=1)

    return Formula(write)


def _elliptic(model: Any) -> Formula:
    """Minus the squared Mahalanobis distance, over its limit."""
    location, precision = np.asarray(model.location_, dtype=np.float64), np.asarray(model.get_precision())

    def write(nodes: Nodes, x: str) -> str:
        centred = nodes.add("Sub", x, nodes.constant(location))
        weighed = nodes.add("Mul", nodes.add("MatMul", centred, nodes.constant(precision)), centred)
        distance = nodes.add("ReduceSum", weighed, nodes.constant(np.array([1])), keepdims=1)
        return nodes.add("Sub", nodes.constant(np.array(-float(model.offset_))), distance)

    return Formula(write)


def _constant(model: Any) -> Formula | None:
    """The same answer whatever the row is."""
    if isinstance(model, DummyClassifier):
        if model.strategy in ("uniform", "stratified") or model.n_outputs_ != 1:
            return None  # random, or several targets
        answer = model.predict_proba(np.zeros((1, 1)))
        classes = model.classes_
    else:
        if model.n_outputs_ != 1:
            return None
        answer, classes = np.asarray(model.constant_, dtype=np.float64).reshape(1, 1), None

    def write(nodes: Nodes, x: str) -> str:
        rows = nodes.add("Shape", x, end=1)
        shape = nodes.add("Concat", rows, nodes.constant(np.array([1])), axis=0)
        return nodes.add("Expand", nodes.constant(np.asarray(answer, dtype=np.float64)), shape)

    return Formula(write, classes)
