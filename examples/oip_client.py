"""Any client of the Open Inference Protocol beside a function: Triton's own asks `recommend` for items.

    pip install 'tritonclient[http]'
    python -m functions.recommend.train
    platform deploy recommend
    python examples/oip_client.py 7 [--candidates 12 31 40] [--url 127.0.0.1:8000]

With candidates, those are ranked; without, the function's own retrieval names them. Tensors travel as raw bytes.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

URL = "127.0.0.1:8000"
FUNCTION = "recommend"


def recommend(url: str, user: int, candidates: Sequence[int] = ()) -> list[tuple[int, float]]:
    """Item ids with their scores, best first. Raises InferenceServerException with the server's reason."""
    columns = {"user_id": np.array([user], np.int64)}
    if candidates:
        columns["candidates"] = np.array([candidates], np.int64)  # a record's list is a row
    given = []
    for name, values in columns.items():
        tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        given.append(tensor.set_data_from_numpy(values, binary_data=True))
    with triton.InferenceServerClient(url) as client:
        answer = client.infer(FUNCTION, given)
    return list(zip(answer.as_numpy("item_id")[0].tolist(), answer.as_numpy("score")[0].tolist(), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask recommend for items, as Triton's client does.")
    parser.add_argument("user", type=int)
    parser.add_argument("--candidates", type=int, nargs="*", default=[])
    parser.add_argument("--url", default=URL, help="host:port")
    given = parser.parse_args()
    try:
        for item, score in recommend(given.url, given.user, given.candidates):
            print(f"{item}\t{score:.4f}")
    except InferenceServerException as error:
        print(error.message(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
