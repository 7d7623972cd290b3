"""Other projects' own clients call a function through the door, unchanged: Triton's, MLflow's."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine_fixture import Engine
from tests.small_bundle import logistic, make_bundle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing the clients and what they import: theirs
    import tritonclient.http as triton  # type: ignore[import-untyped, unused-ignore]
    from tritonclient.utils import (  # type: ignore[import-untyped, unused-ignore]
        InferenceServerException,
        np_to_triton_dtype,
    )

ROWS = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-1.0, 0.5, np.nan]])
SCORES = 1 / (1 + np.exp(-ROWS.sum(axis=1)))
DECISIONS = [b"allow", b"block", b"allow"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("clients") / "p")
    engine.up()
    digest = make_bundle(engine.project.bundles, logistic(3), ROWS)
    engine.deploy("score", digest, settings={}, on_event=lambda _: None)
    yield engine
    engine.down()


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{engine.port}", connection_timeout=10, network_timeout=10) as client:
        yield client


def tensor(name: str, values: NDArray[Any], *, binary: bool) -> Any:
    given = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    return given.set_data_from_numpy(values, binary_data=binary)


def fields(*, binary: bool, dtype: str = "f8", rows: int = 3) -> list[Any]:
    return [tensor(f"f{i}", ROWS[:rows, i].astype(dtype), binary=binary) for i in range(3)]


# --- Triton -----------------------------------------------------------------------------------------------------------


def test_triton_asks_what_there_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("score")
    assert client.is_model_ready("score", "3")
    assert not client.is_model_ready("score", "4")
    assert not client.is_model_ready("scor")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("score", "3")["inputs"][0] == {"name": "f0", "datatype": "FP64", "shape": [-1]}


@pytest.mark.parametrize("wanted", ["all", "json", "binary", "mixed"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_triton_infers_from_raw_tensors(client: Any, dtype: str, wanted: str) -> None:
    check(client.infer("score", fields(binary=True, dtype=dtype), request_id="mine", outputs=outputs(wanted)))


@pytest.mark.parametrize("wanted", ["all", "json", "binary", "mixed"])
def test_triton_infers_from_json(client: Any, wanted: str) -> None:
    given = fields(binary=False, rows=2)  # NaN is not in the JSON that Triton's client writes
    check(client.infer("score", given, "3", request_id="mine", outputs=outputs(wanted)), rows=2)


def test_triton_mixes_json_and_raw_tensors(client: Any) -> None:
    given = [fields(binary=i != 1, rows=2)[i] for i in range(3)]
    check(client.infer("score", given, request_id="mine"), rows=2)


def test_triton_sends_the_models_matrix(client: Any) -> None:
    check(client.infer("score", [tensor("input", ROWS, binary=True)], request_id="mine"))


def test_triton_sees_errors_as_errors(client: Any) -> None:
    lying = fields(binary=True)
    lying[1].set_shape([4])
    wrong = [
        lying,
        fields(binary=True)[:2],
        [*fields(binary=True), tensor("f3", ROWS[:, 0], binary=True)],
        [tensor(f"f{i}", np.array([b"x"], object), binary=True) for i in range(3)],
    ]
    for given in wrong:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("score", given)
        assert caught.value.status() == "400"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("scor", fields(binary=True))
    assert caught.value.status() == "404"
    check(client.infer("score", fields(binary=True), request_id="mine"))


def test_triton_compresses(client: Any) -> None:
    given = fields(binary=True)
    check(client.infer("score", given, request_id="mine", request_compression_algorithm="gzip"))
    many = [tensor(f"f{i}", np.repeat(ROWS[:, i], 1000), binary=True) for i in range(3)]
    large = client.infer("score", many, response_compression_algorithm="gzip")
    np.testing.assert_allclose(large.as_numpy("score"), np.repeat(SCORES, 1000))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("score", given, request_compression_algorithm="deflate")
    assert caught.value.status() == "415"


def test_triton_reads_index_and_statistics(client: Any) -> None:
    check(client.infer("score", fields(binary=True), request_id="mine"))
    assert client.get_model_repository_index() == [{"name": "score", "version": "3", "state": "READY", "reason": ""}]
    for name, version in (("score", ""), ("score", "3"), ("", "")):
        (said,) = client.get_inference_statistics(name, version)["model_stats"]
        assert said["inference_count"] >= 3
        assert said["inference_stats"]["success"]["count"] >= said["execution_count"] >= 1


def outputs(wanted: str) -> list[Any] | None:
    if wanted == "all":
        return None
    binary = {"json": (False, False), "binary": (True, True), "mixed": (False, True)}[wanted]
    return [triton.InferRequestedOutput(n, binary_data=b) for n, b in zip(("score", "decision"), binary, strict=True)]


def check(result: Any, rows: int = 3) -> None:
    np.testing.assert_allclose(result.as_numpy("score"), SCORES[:rows])
    decisions = [d if isinstance(d, bytes) else d.encode() for d in result.as_numpy("decision")]
    assert decisions == DECISIONS[:rows]
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_name"] == "score"
