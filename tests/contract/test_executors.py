# Longer than 300 lines: one contract, every executor, and what each may refuse.
"""What every executor promises, on the stub and on ONNX Runtime; then what only the real one has to show."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sunup.errors import BundleDamaged, CommandError, ProofFailed
from sunup.execute import installed
from sunup.execute.executor import Executor
from sunup.execute.onnx import OnnxExecutor, optimise, runtime
from sunup.execute.proof import compare, read_warmup
from sunup.execute.stub import StubExecutor
from sunup.types import Tensor

WEIGHTS = (0.5, -1.25, 2.0)
BIAS = 0.25


def linear_classifier() -> bytes:
    """The stub's model as an ONNX graph: the same inputs, outputs and numbers."""
    weights = np.array(WEIGHTS).reshape(3, 1)
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["one"]),
        helper.make_node("Sub", ["unit", "one"], ["zero"]),
        helper.make_node("Concat", ["zero", "one"], ["probability"], axis=1),
        helper.make_node("Greater", ["one", "half"], ["over"]),
        helper.make_node("Cast", ["over"], ["column"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["column", "flat"], ["label"]),
    ]
    constants = {
        "weights": weights,
        "bias": np.array([BIAS]),
        "unit": np.array([1.0]),
        "half": np.array([0.5]),
        "flat": np.array([-1], dtype=np.int64),
    }
    return model(
        nodes,
        [helper.make_tensor_value_info("input", TensorProto.DOUBLE, ["n", 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("probability", TensorProto.DOUBLE, ["n", 2]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )


def model(nodes: Any, inputs: Any, outputs: Any, constants: Sequence[Any] = ()) -> bytes:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def text_model() -> bytes:
    return model(
        [
            helper.make_node("Identity", ["text"], ["same"]),
            helper.make_node("Cast", ["n"], ["real"], to=TensorProto.FLOAT),
        ],
        [
            helper.make_tensor_value_info("text", TensorProto.STRING, [None, 1]),
            helper.make_tensor_value_info("n", TensorProto.INT32, [None]),
        ],
        [
            helper.make_tensor_value_info("same", TensorProto.STRING, [None, 1]),
            helper.make_tensor_value_info("real", TensorProto.FLOAT, [None]),
        ],
    )


def stub() -> Executor:
    return StubExecutor(WEIGHTS, BIAS)


def real() -> Executor:
    return OnnxExecutor(linear_classifier(), optimised=False)


def real_optimised() -> Executor:
    return OnnxExecutor(optimise(linear_classifier()), optimised=True)


@pytest.fixture(params=[stub, real, real_optimised], ids=lambda make: make.__name__)
def executor(request: pytest.FixtureRequest) -> Executor:
    make: Callable[[], Executor] = request.param
    return make()


MATRIX = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 8.0, -1.0]])
ONE = 1 / (1 + np.exp(-(MATRIX @ np.array(WEIGHTS) + BIAS)))


def test_it_says_what_it_takes_and_gives(executor: Executor) -> None:
    assert tuple(executor.inputs) == (Tensor("input", "float64", (-1, 3)),)
    assert tuple(executor.outputs) == (Tensor("label", "int64", (-1,)), Tensor("probability", "float64", (-1, 2)))
    assert "input" in repr(executor) or "Stub" in repr(executor)


def test_it_gives_the_outputs_asked_for_in_that_order(executor: Executor) -> None:
    probability, label = executor.run({"input": MATRIX}, ("probability", "label"))
    assert [probability.dtype.name, label.dtype.name] == ["float64", "int64"]
    np.testing.assert_allclose(probability, np.stack([1 - ONE, ONE], axis=1), rtol=0, atol=1e-12)
    assert label.tolist() == [1, 1, 0]
    (alone,) = executor.run({"input": MATRIX}, ("label",))
    assert alone.tolist() == [1, 1, 0]


@pytest.mark.parametrize("rows", [1, 2, 100, 5000])
def test_rows_do_not_touch_each_other(executor: Executor, rows: int) -> None:
    matrix = np.random.default_rng(rows).normal(size=(rows, 3))
    (together,) = executor.run({"input": matrix}, ("probability",))
    assert together.shape == (rows, 2)
    for at in {0, rows // 2, rows - 1}:
        (single,) = executor.run({"input": matrix[at : at + 1]}, ("probability",))
        np.testing.assert_allclose(single[0], together[at], rtol=0, atol=1e-12)


def test_missing_values_pass_through(executor: Executor) -> None:
    (probability,) = executor.run({"input": np.array([[1.0, np.nan, 2.0], [0.0, 0.0, 0.0]])}, ("probability",))
    assert np.isnan(probability[0]).all()
    assert not np.isnan(probability[1]).any()


@pytest.mark.parametrize(
    ("feeds", "outputs"),
    [
        ({}, ("label",)),
        ({"other": MATRIX}, ("label",)),
        ({"input": MATRIX.astype(np.float32)}, ("label",)),
        ({"input": MATRIX[:, :2]}, ("label",)),
        ({"input": MATRIX[0]}, ("label",)),
        ({"input": MATRIX}, ("nothing",)),
    ],
)
def test_what_does_not_fit_raises(executor: Executor, feeds: dict[str, Any], outputs: tuple[str, ...]) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  # each runtime has classes of its own
        executor.run(feeds, outputs)


def test_several_threads_may_run_it_at_once(executor: Executor) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        matrix = np.random.default_rng(seed).normal(size=(20, 3))
        expected = executor.run({"input": matrix}, ("probability",))[0]
        again = (executor.run({"input": matrix}, ("probability",))[0] for _ in range(50))
        wrong.extend(seed for given in again if not np.array_equal(given, expected))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_is_the_end(executor: Executor) -> None:
    executor.close()


# --- ONNX Runtime only ------------------------------------------------------------------------------------------------


def test_a_model_loads_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_classifier())
    (label,) = OnnxExecutor(path, optimised=False).run({"input": MATRIX}, ("label",))
    assert label.tolist() == [1, 1, 0]


def test_strings_and_narrow_types_travel() -> None:
    executor = OnnxExecutor(text_model(), optimised=False)
    assert [tensor.dtype for tensor in executor.inputs] == ["string", "int32"]
    text = np.array([["ü"], [""]], dtype=object)
    same, real_numbers = executor.run({"text": text, "n": np.array([1, 2], dtype=np.int32)}, ("same", "real"))
    assert same.tolist() == [["ü"], [""]]
    assert real_numbers.dtype == np.float32


def test_optimising_is_deterministic_and_leaves_the_answers_alone() -> None:
    first, second = optimise(linear_classifier()), optimise(linear_classifier())
    assert first == second
    assert len(onnx.load_from_string(first).graph.node) <= len(onnx.load_from_string(linear_classifier()).graph.node)


def test_bytes_that_are_no_model_raise() -> None:
    with pytest.raises(Exception, match=r"(?i)protobuf|model"):
        OnnxExecutor(b"not a model", optimised=True)


def test_a_type_we_do_not_carry_is_refused_by_name() -> None:
    half = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [None])],
    )
    with pytest.raises(ValueError, match="float16"):
        OnnxExecutor(half, optimised=False)


def test_loading_and_running_start_no_threads() -> None:
    before = len(os.listdir("/proc/self/task"))
    executors = [real_optimised() for _ in range(3)]
    for executor in executors:
        executor.run({"input": MATRIX}, ("label",))
    assert len(os.listdir("/proc/self/task")) == before


def test_a_session_survives_a_fork() -> None:
    executor = real_optimised()
    expected = executor.run({"input": MATRIX}, ("probability",))[0]
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                same = np.array_equal(executor.run({"input": MATRIX}, ("probability",))[0], expected)
                os._exit(0 if same else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


def test_the_runtime_has_a_version() -> None:
    assert runtime().count(".") >= 1


# --- Which runtime is installed ---------------------------------------------------------------------------------------


def test_one_runtime_is_installed_here() -> None:
    assert installed.check_installed() in (installed.CPU, installed.GPU)


def distribution(folder: Path, name: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.99.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.99.0\n")


@pytest.mark.parametrize("present", [(), (installed.CPU,), (installed.GPU,), (installed.CPU, installed.GPU)])
def test_both_or_neither_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...]) -> None:
    for name in present:
        distribution(tmp_path, name)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    if len(present) == 1:
        assert installed.check_installed() == present[0]
        return
    with pytest.raises(CommandError, match="pip install"):
        installed.check_installed()


# --- The self-proof ---------------------------------------------------------------------------------------------------


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_warmup_rows_come_back_as_they_were(tmp_path: Path) -> None:
    text = np.array([["a"], ["bc"]])
    path = save(tmp_path / "warmup.npz", **{"in:x": MATRIX[:2], "in:text": text, "out:label": np.array(["p", "q"])})
    warmup = read_warmup(path)
    assert warmup.rows == 2
    assert warmup.feeds["text"].dtype == object
    assert warmup.expected["label"].tolist() == ["p", "q"]
    np.testing.assert_array_equal(warmup.feeds["x"], MATRIX[:2])


def test_a_damaged_or_pickled_warmup_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "warmup.npz"
    with pytest.raises(BundleDamaged):
        read_warmup(path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(BundleDamaged):
        read_warmup(path)
    with pytest.raises(BundleDamaged, match="warmup"):
        read_warmup(save(path, **{"in:x": np.array([object()], dtype=object)}))
    with pytest.raises(BundleDamaged, match="no rows"):
        read_warmup(save(path, **{"in:x": MATRIX}))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([0.5, 0.25]), np.array([0.5, 0.250009])),
        (np.array([1e6]), np.array([1e6 + 5])),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf])),
        (np.array([[0.5], [0.25]]), np.array([0.5, 0.25])),
        (np.array([1, 2]), np.array([1, 2])),
        (np.array(["a", "b"], dtype=object), np.array(["a", "b"], dtype=object)),
    ],
)
def test_answers_that_agree(given: Any, expected: Any) -> None:
    compare({"y": given}, {"y": expected}, 1e-5)


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        (np.array([0.5, 0.25]), np.array([0.5, 0.2501]), "row 1"),
        (np.array([1e6]), np.array([1e6 + 50]), "difference 5e-05"),
        (np.array([np.nan]), np.array([0.5]), "nan"),
        (np.array([0.5]), np.array([np.nan]), "nan"),
        (np.array([np.inf]), np.array([-np.inf]), "inf"),
        (np.array([0.5]), np.array([0.5, 0.5]), "shape"),
        (np.array([1, 2]), np.array([1, 3]), "'y'"),
        (np.array(["a"], dtype=object), np.array(["b"], dtype=object), "'b'"),
        (np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([[0.5, 0.5], [0.9, 0.1]]), "row 1"),
    ],
)
def test_answers_that_differ_are_named(given: Any, expected: Any, said: str) -> None:
    with pytest.raises(ProofFailed, match=said):
        compare({"y": given}, {"y": expected}, 1e-5)
