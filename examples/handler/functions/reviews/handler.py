"""Text to the columns of the model, and its answer to words: columns in, columns out."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from text_unidecode import unidecode  # type: ignore[import-not-found]  # installed into the bundle only

Columns = dict[str, NDArray[Any]]

GOOD = {"gut", "toll", "schon", "wunderbar", "good", "great"}
BAD = {"schlecht", "furchtbar", "schrecklich", "bad", "awful", "nie"}


def preprocess(rows: Columns) -> Columns:
    """text -> good, bad, words: how many words of each list there are, and how many in all."""
    texts = [re.findall(r"[a-z]+", unidecode(text).lower()) for text in rows["text"]]
    return {
        "good": np.array([sum(word in GOOD for word in words) for words in texts], dtype=np.float64),
        "bad": np.array([sum(word in BAD for word in words) for words in texts], dtype=np.float64),
        "words": np.array([len(words) for words in texts], dtype=np.float64),
    }


def postprocess(rows: Columns, outputs: Columns) -> Columns:
    """label and probability -> what callers read."""
    return {
        "opinion": np.where(outputs["label"] == 1, "good", "bad"),
        "words": rows["words"].astype(np.int64),
        "sure": outputs["probability"].max(axis=1),
    }
