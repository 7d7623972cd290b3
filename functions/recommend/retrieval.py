"""Retrieval by embeddings, all of it inside an ONNX graph: user id in, the ids of the items nearest to the user out.

    user_id [n, 1] -> row of the user's embedding (that of nobody for an unknown id) -> Gather [n, d]
                -> MatMul with the catalogue's [d, items] -> ScatterElements: what the user has seen goes last
                -> TopK -> Gather of the item ids [n, k]

The embeddings are a truncated SVD of who looked at what. One more dimension carries popularity, which only the row for
unknown users has a part of: they get what is looked at most. Scores are float64: in float32 two items that are nearly
equal would change places with the number of rows in a run.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.decomposition import TruncatedSVD

from functions.recommend.simulate import FIRST_ITEM, ITEMS, USERS

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

DIMENSIONS: Final = 24
CANDIDATES: Final = 200
HALF_LIFE_DAYS: Final = 14.0  # a view that old counts half


@dataclass(frozen=True, slots=True)
class Embeddings:
    """`users` [USERS + 1, d]: row u is user u's, the last row everybody else's; `items` [ITEMS, d];
    `seen` [USERS + 1, m] the places of the items each user has looked at, filled up with ITEMS."""

    users: Floats
    items: Floats
    seen: Ints

    def nearest(self, users: Ints, scores: Floats | None = None) -> Ints:
        """Item ids [n, CANDIDATES], best first: what the graph answers. `scores` [ITEMS + 1]: instead of closeness."""
        known = (users >= 0) & (users < USERS)
        rows = np.where(known, users, USERS)
        if scores is None:
            given = np.append(self.users[rows] @ self.items.T, np.zeros((len(users), 1)), axis=1)
        else:
            given = np.tile(scores, (len(users), 1))
        np.put_along_axis(given, self.seen[rows], -np.inf, axis=1)
        given[:, ITEMS] = -np.inf
        return FIRST_ITEM + np.argsort(-given, axis=1, kind="stable")[:, :CANDIDATES]


def embed(views: pd.DataFrame, day: int, seed: int) -> Embeddings:
    """Of the views before `day`, newer ones counting more."""
    before = views[views["day"] < day]
    weight = 0.5 ** ((day - 1 - before["day"].to_numpy()) / HALF_LIFE_DAYS)
    where = before["user_id"].to_numpy(), before["item_id"].to_numpy() - FIRST_ITEM
    seen = csr_matrix((weight, where), shape=(USERS, ITEMS))
    popularity = np.asarray(seen.sum(axis=0)).ravel()
    seen.data = np.log1p(seen.data)
    svd = TruncatedSVD(DIMENSIONS, random_state=seed).fit(seen)
    users = np.zeros((USERS + 1, DIMENSIONS + 1))
    users[:USERS, :-1] = svd.transform(seen)
    nobody = np.append(np.diff(seen.indptr) == 0, True)
    users[nobody] = np.eye(DIMENSIONS + 1)[-1]
    return Embeddings(users, np.column_stack([svd.components_.T, popularity]), _padded(seen))


def _padded(seen: Any) -> Ints:
    counts = np.diff(seen.indptr)
    padded: Ints = np.full((USERS + 1, counts.max()), ITEMS)
    padded[:USERS][np.arange(counts.max()) < counts[:, None]] = seen.indices
    return padded


def graph(embeddings: Embeddings) -> Any:
    """The ONNX model: user_id int64 [n, 1], as MLflow feeds a data frame, to item_id int64 [n, CANDIDATES]."""
    items = np.append(embeddings.items, np.zeros((1, embeddings.items.shape[1])), axis=0)  # one that is never named
    constants = {
        "second": np.array([1], np.int64),
        "zero": np.array(0, np.int64),
        "users": np.array(USERS, np.int64),
        "user_embeddings": embeddings.users,
        "item_embeddings": np.ascontiguousarray(items.T),
        "item_ids": FIRST_ITEM + np.arange(ITEMS + 1, dtype=np.int64),
        "seen": embeddings.seen,
        "least": np.full((1, embeddings.seen.shape[1]), -np.inf),
        "k": np.array([CANDIDATES], np.int64),
    }
    nodes = [
        helper.make_node("Squeeze", ["user_id", "second"], ["user"]),
        helper.make_node("GreaterOrEqual", ["user", "zero"], ["from_zero"]),
        helper.make_node("Less", ["user", "users"], ["below"]),
        helper.make_node("And", ["from_zero", "below"], ["known"]),
        helper.make_node("Where", ["known", "user", "users"], ["row"]),
        helper.make_node("Gather", ["user_embeddings", "row"], ["embedding"], axis=0),
        helper.make_node("MatMul", ["embedding", "item_embeddings"], ["closeness"]),
        helper.make_node("Gather", ["seen", "row"], ["seen_by_user"], axis=0),
        helper.make_node("Shape", ["seen_by_user"], ["seen_shape"]),
        helper.make_node("Expand", ["least", "seen_shape"], ["never"]),
        helper.make_node("ScatterElements", ["closeness", "seen_by_user", "never"], ["new"], axis=1),
        helper.make_node("TopK", ["new", "k"], ["best", "places"], axis=1),
        helper.make_node("Gather", ["item_ids", "places"], ["item_id"], axis=0),
    ]
    made = helper.make_graph(
        nodes,
        "retrieval",
        [helper.make_tensor_value_info("user_id", TensorProto.INT64, ["n", 1])],
        [helper.make_tensor_value_info("item_id", TensorProto.INT64, ["n", CANDIDATES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    return model
