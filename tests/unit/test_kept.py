"""What the nursery keeps open: which models, for how long, and that a fork answers with them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.unit.test_function import bundle

from sunup.execute.executor import Executor
from sunup.function import MODEL, load
from sunup.limits import KEPT_MODEL_BYTES_MAX
from sunup.link.process import resident_bytes, trim_heap
from sunup.serve.kept import KeptModels

MIB = 1024**2


def large_model(seed: int, kib: int = 1024, *, nothing: bool = False) -> bytes:
    """total of float64 [-1, 2] through about so many KiB of weights, which no two seeds share; of `nothing`, the sum of
    the row, and the weights come to nothing."""
    width = kib * 64
    weights = numpy_helper.from_array(np.random.default_rng(seed).normal(size=(2, width)), "weights")
    opset = helper.make_opsetid("", 17)
    nodes = [helper.make_node("MatMul", ["input", "weights"], ["wide"])]
    if nothing:
        nodes.append(helper.make_node("Mul", ["wide", "zero"], ["none"]))
        nodes.append(helper.make_node("Concat", ["input", "none"], ["both"], axis=1))
    nodes.append(helper.make_node("ReduceSum", ["both" if nothing else "wide", "axis"], ["total"], keepdims=0))
    rows = helper.make_tensor_value_info("input", TensorProto.DOUBLE, [None, 2])
    out = helper.make_tensor_value_info("total", TensorProto.DOUBLE, [None])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    zero = helper.make_tensor("zero", TensorProto.DOUBLE, [], [0.0])
    graph = helper.make_graph(nodes, "large", [rows], [out], [weights, axis, *([zero] if nothing else [])])
    data: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return data


def deep_model(depth: int = 100) -> bytes:
    """probability = [1, 1] of "input" [-1, 2], by so many small steps that opening it takes a while."""
    steps = [f"h{i}" for i in range(depth)]
    nodes = [
        helper.make_node("Abs", [before], [after]) for before, after in zip(["input", *steps], steps, strict=False)
    ]
    nodes.append(helper.make_node("Softmax", [steps[-1]], ["probability"], axis=1))
    rows = helper.make_tensor_value_info("input", TensorProto.DOUBLE, [None, 2])
    out = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, [None, 2])
    graph = helper.make_graph(nodes, "deep", [rows], [out])
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return data


def wide_model() -> bytes:
    """probability = [0.5, 0.5] of "input" [-1, 2], by way of 4 MiB of weights."""
    weights = numpy_helper.from_array(np.random.default_rng(4).normal(size=(2, 2**17)), "weights")
    back = numpy_helper.from_array(np.zeros((2**17, 2)), "back")
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["wide"]),
        helper.make_node("MatMul", ["wide", "back"], ["narrow"]),
        helper.make_node("Softmax", ["narrow"], ["probability"], axis=1),
    ]
    rows = helper.make_tensor_value_info("input", TensorProto.DOUBLE, [None, 2])
    out = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, [None, 2])
    graph = helper.make_graph(nodes, "wide", [rows], [out], [weights, back])
    opset = helper.make_opsetid("", 17)
    data: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return data


def deep_rows() -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.array([[1.0, 2.0], [3.0, 4.0]])


def birth(path: Path, *, prove: bool = False, cost: tuple[float, ...] | None = (3, 1e-5, 0.01)) -> dict[str, Any]:
    return {"bundle": str(path), "prove": prove, "cost": cost}


def kept(models: KeptModels, path: Path) -> Executor | None:
    """What a worker of this bundle is given when it is born again."""
    models.of(birth(path))
    while models.settle():
        pass
    return models.of(birth(path))


def total(executor: Executor) -> float:
    return float(executor.run({"input": np.array([[1.0, 2.0]])}, ["total"])[0][0])


def test_a_model_asked_for_again_is_kept_and_answers_in_a_fork(tmp_path: Path) -> None:
    models, path = KeptModels(), bundle(tmp_path)
    assert models.of(birth(path)) is None
    executor = kept(models, path)
    assert executor is not None
    for _ in range(3):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            function = load(path, settings={}, prove=False, kept=executor)
            os.write(write, str(total(function.executor)).encode())
            os._exit(0)
        os.close(write)
        assert float(os.read(read, 64)) == 3.0
        os.close(read)
        assert os.waitpid(pid, 0)[1] == 0
    assert total(executor) == 3.0


def test_neither_a_proof_nor_a_bundle_unknown_or_slow_is_given_a_kept_model(tmp_path: Path) -> None:
    models, path = KeptModels(), bundle(tmp_path)
    assert models.of(birth(path, cost=None)) is None
    assert models.of(birth(path, cost=(3, 1e-5, 2.0))) is None, "opening it would hold births up"
    assert not models.settle()
    assert models.of({"bundle": "", "prove": False, "cost": None}) is None
    assert kept(models, path) is not None
    assert models.of(birth(path, prove=True)) is None


def test_the_one_asked_for_longest_ago_goes_and_its_memory_too(tmp_path: Path) -> None:
    paths = [bundle(tmp_path / str(seed), model=large_model(seed)) for seed in range(5)]
    trim_heap()
    before = resident_bytes()
    models = KeptModels(bytes_max=5 * MIB // 2)
    first, second = paths[:2]
    assert kept(models, first) is not None
    assert kept(models, second) is not None
    assert models.of(birth(first)) is not None  # so the second one is older now
    assert kept(models, paths[2]) is not None
    assert models.of(birth(second)) is None
    assert models.of(birth(first)) is not None
    for path in (*paths, *paths):
        kept(models, path)
    trim_heap()
    assert resident_bytes() - before < 5 * MIB


def test_models_that_are_large_damaged_or_gone_are_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = KeptModels()
    large = bundle(tmp_path / "large", model=large_model(1, KEPT_MODEL_BYTES_MAX // 1024 + 64))
    assert kept(models, large) is None
    damaged = bundle(tmp_path / "damaged")
    (damaged / MODEL).write_bytes(b"no model")
    assert kept(models, damaged) is None
    assert damaged.name in capsys.readouterr().err
    gone = bundle(tmp_path / "gone")
    assert kept(models, gone) is not None
    (gone / MODEL).rename(tmp_path / "elsewhere")
    assert kept(models, bundle(tmp_path / "other")) is not None
    assert models.of(birth(gone)) is None
    models.settle()
