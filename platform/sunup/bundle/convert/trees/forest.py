"""Decision trees of any library as flat arrays, and the ONNX operator that runs them in float64.

The stock converters round thresholds to float32, which sends rows at a split the wrong way; here they stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from sunup.bundle.convert.graph import Nodes

ML: Final = "ai.onnx.ml"

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Compare = Literal["float64", "float32"]


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree, or several that were put together: see Forest. `roots` holds the index of each root.

    Node i sends a row to `left[i]` when x[feature[i]] <= threshold[i], or when x is NaN and `missing_left[i]`, else to
    `right[i]`. A child c >= 0 is a node, c < 0 the leaf ~c. `value` [leaves, k]: what a leaf adds to the k outputs
    from `target[leaf]` on. `split`: the threshold for a float64 comparison that sends every float64 the same way as the
    library does (they differ where a library rounds its input first). `sets`: node -> the codes that go left there
    instead (a category's number, in ascending order); its threshold and split are infinite.
    """

    feature: Ints
    threshold: Floats
    split: Floats
    missing_left: Bools
    left: Ints
    right: Ints
    value: Floats
    target: Ints
    roots: Ints
    sets: Mapping[int, Ints] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees whose leaves are summed into `outputs` values. `compare`: the dtype the library compares in."""

    trees: Tree
    outputs: int
    compare: Compare


def plant(trees: Sequence[Tree], outputs: int, compare: Compare) -> Forest:
    """One Forest from single trees, in order (the order of summation)."""
    trees = [tree if len(tree.feature) else _stump(tree) for tree in trees]
    nodes = np.cumsum([0, *(len(tree.feature) for tree in trees)])
    leaves = np.cumsum([0, *(len(tree.value) for tree in trees)])

    def children(side: str) -> Ints:
        parts = [getattr(tree, side) for tree in trees]
        moved = (np.where(c >= 0, c + nodes[i], c - leaves[i]) for i, c in enumerate(parts))
        return np.concatenate(list(moved))

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, name) for tree in trees])

    whole = Tree(
        feature=joined("feature"),
        threshold=joined("threshold"),
        split=joined("split"),
        missing_left=joined("missing_left"),
        left=children("left"),
        right=children("right"),
        value=joined("value"),
        target=joined("target"),
        roots=nodes[:-1].astype(np.int64),
        sets={int(nodes[i]) + node: codes for i, tree in enumerate(trees) for node, codes in tree.sets.items()},
    )
    return Forest(whole, outputs, compare)


def add_forest(nodes: Nodes, forest: Forest, x: str) -> str:
    """Add the sums of a forest over the float64 matrix `x`. Returns the name of the float64 [rows, outputs]."""
    if forest.trees.value.shape[1] == 1 and nodes.ml >= 5:
        return _add_ensemble(nodes, forest, x)
    if forest.trees.sets:
        raise ValueError("the older operator has no splits on sets of categories")
    return nodes.add("Cast", _add_regressor(nodes, forest, x), to=TensorProto.DOUBLE)


def _add_ensemble(nodes: Nodes, forest: Forest, x: str) -> str:
    tree = forest.trees
    attributes: dict[str, Any] = {
        "aggregate_function": 1,  # sum
        "n_targets": forest.outputs,
        "post_transform": 0,  # none
        "tree_roots": tree.roots.tolist(),
        "nodes_featureids": tree.feature.tolist(),
        "nodes_modes": numpy_helper.from_array(_modes(tree)),
        "nodes_splits": numpy_helper.from_array(tree.split),
        "leaf_targetids": tree.target.tolist(),
        "leaf_weights": numpy_helper.from_array(np.ascontiguousarray(tree.value[:, 0])),
    }
    for side, child in (("true", tree.left), ("false", tree.right)):
        attributes[f"nodes_{side}nodeids"] = np.where(child < 0, ~child, child).tolist()
        attributes[f"nodes_{side}leafs"] = (child < 0).astype(np.int64).tolist()
    if tree.missing_left.any():
        attributes["nodes_missing_value_tracks_true"] = tree.missing_left.astype(np.int64).tolist()
    if tree.sets:
        attributes["nodes_splits"] = numpy_helper.from_array(np.where(np.isfinite(tree.split), tree.split, 0.0))
        parts = [np.append(tree.sets[node].astype(np.float64), np.nan) for node in sorted(tree.sets)]
        attributes["membership_values"] = numpy_helper.from_array(np.concatenate(parts))
    return nodes.add("TreeEnsemble", x, domain=ML, **attributes)


def _modes(tree: Tree) -> NDArray[np.uint8]:
    """0: x <= split; 6: x is in the node's set."""
    modes = np.zeros(len(tree.feature), dtype=np.uint8)
    modes[sorted(tree.sets)] = 6
    return modes


def _add_regressor(nodes: Nodes, forest: Forest, x: str) -> str:
    """The older operator: leaves may add to several outputs, thresholds are float64, but sums leave as float32."""
    tree = forest.trees
    inner, leaves, width = len(tree.feature), len(tree.value), tree.value.shape[1]
    owner = _owners(tree)
    order = np.argsort(owner, kind="stable")

    def spread(of_nodes: NDArray[Any], of_leaves: Any) -> NDArray[Any]:
        return np.concatenate([of_nodes, np.broadcast_to(of_leaves, leaves)])[order]

    def child(side: Ints) -> Ints:
        return np.where(side < 0, ~side + inner, side)

    weights = tree.value.ravel()
    outputs = (tree.target[:, None] + np.arange(width)).ravel()
    return nodes.add(
        "TreeEnsembleRegressor",
        x,
        domain=ML,
        n_targets=forest.outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=owner[order].tolist(),
        nodes_nodeids=np.arange(inner + leaves)[order].tolist(),
        nodes_featureids=spread(tree.feature, 0).tolist(),
        nodes_modes=[b"BRANCH_LEQ" if leq else b"LEAF" for leq in spread(np.ones(inner, bool), False)],
        nodes_values_as_tensor=numpy_helper.from_array(spread(tree.split, 0.0)),
        nodes_truenodeids=spread(child(tree.left), 0).tolist(),
        nodes_falsenodeids=spread(child(tree.right), 0).tolist(),
        nodes_missing_value_tracks_true=spread(tree.missing_left.astype(np.int64), 0).tolist(),
        target_treeids=np.repeat(owner[inner:], width).tolist(),
        target_nodeids=np.repeat(np.arange(inner, inner + leaves), width).tolist(),
        target_ids=outputs.tolist(),
        target_weights_as_tensor=numpy_helper.from_array(weights),
    )


def _owners(tree: Tree) -> Ints:
    """Which tree each node and then each leaf belongs to; the nodes of one tree lie together."""
    inner = np.searchsorted(tree.roots, np.arange(len(tree.feature)), side="right") - 1
    leaves = np.zeros(len(tree.value), dtype=np.int64)
    for side in (tree.left, tree.right):
        leaves[~side[side < 0]] = inner[side < 0]
    return np.concatenate([inner, leaves])


def _stump(tree: Tree) -> Tree:
    """A tree of one leaf as a node whose two leaves are alike: the operators know no tree without a node."""
    one = np.zeros(1)
    return Tree(
        feature=np.zeros(1, dtype=np.int64),
        threshold=one,
        split=one,
        missing_left=np.zeros(1, dtype=np.bool_),
        left=np.array([~0]),
        right=np.array([~1]),
        value=np.repeat(tree.value, 2, axis=0),
        target=np.repeat(tree.target, 2),
        roots=np.zeros(1, dtype=np.int64),
    )


def split_of_float32(threshold: Floats) -> Floats:
    """The float64 s with x <= s exactly when float32(x) <= threshold, for every float64 x.

    float32 rounds to nearest, ties to even: everything up to the midpoint above the largest float32 f <= threshold
    becomes at most f; the midpoint itself does when f is even.
    """
    floor = floor32(threshold)
    with np.errstate(over="ignore"):
        following = np.nextafter(floor, np.float32(np.inf))
    # Beyond the largest float32, rounding turns over where it would if there were one more.
    beyond = 2.0**128
    middle = (floor.astype(np.float64).clip(-beyond, beyond) + following.astype(np.float64).clip(-beyond, beyond)) / 2
    even = (floor.view(np.uint32) & 1) == 0
    return np.where(np.isposinf(threshold), np.inf, np.where(even, middle, np.nextafter(middle, -np.inf)))


def floor32(threshold: Floats) -> NDArray[np.float32]:
    """The largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
        below = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded.astype(np.float64) > threshold, below, rounded)
