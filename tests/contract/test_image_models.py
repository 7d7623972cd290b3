"""Graphs that take an image: which are served, what they are proven with, and that the proof can fail."""

from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from sunup.bundle.convert import task
from sunup.bundle.convert.images import image_example, in_parts, png
from sunup.bundle.job import Job, Result
from sunup.bundle.parity import Arrays, prove
from sunup.errors import ConversionRefused, ParityFailed
from sunup.execute.onnx import OnnxExecutor
from sunup.limits import IMAGE_PROOF_RUN_ROWS
from sunup.registry.signature import read
from sunup.types import PIXELS, Field, Tensor

SIZE = (12, 16)
SHAPE = (*SIZE, 3)
IMAGE = Field("photo", PIXELS, SHAPE)
PRICE = Field("price", "float64")

pytestmark = [
    # MLflow warns about its own type hints when it is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def graph(*, price: bool = False, dtype: int = TensorProto.UINT8, shape: Any = ("n", *SHAPE), out: int = 1) -> Any:
    """score[n, 1] = a convolution of the image, summed up; plus the price [n, 1], if it takes one."""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32) / 255
    nodes = [
        helper.make_node("Cast", ["pixels"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "one"], ["score" if out == 1 and not price else "u"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", dtype, shape)]
    if price:
        nodes.append(helper.make_node("Cast", ["price"], ["p"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Add", ["u", "p"], ["score"]))
        inputs.append(helper.make_tensor_value_info("price", TensorProto.DOUBLE, ["n", 1]))
    elif out != 1:
        nodes.append(helper.make_node("Cast", ["u"], ["score"], to=out))
    constants = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    outputs = [helper.make_tensor_value_info("score", out, ["n", 1])]
    made = helper.make_graph(nodes, "look", inputs, outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def logged(folder: Path, model: Any, example: Any) -> Path:
    """An MLflow model of a graph."""
    import mlflow.onnx  # seconds

    given = example if isinstance(example, dict) else {"photo": example}
    signature = mlflow.models.infer_signature(given, np.zeros((1, 1), np.float32))
    mlflow.onnx.save_model(model, str(folder), signature=signature, input_example=example)
    return folder


def converted(folder: Path, *columns: Field, rows: str = "") -> tuple[Result, dict[str, Any]]:
    """What the packager makes of a model: its result and its proof."""
    out = folder / "out"
    out.mkdir()
    job = Job(str(folder), "onnx", columns, (), 1e-5, str(out), rows)
    result = task.run(job, lambda _name, _seconds: None)
    return result, msgspec.json.decode((out / "parity.json").read_bytes())


def test_an_image_is_proven_with_its_example_and_with_what_nobody_took(tmp_path: Path) -> None:
    folder = logged(tmp_path / "m", graph(), images(5))
    assert read(folder).fields() == (IMAGE,)
    result, proof = converted(folder, IMAGE)
    assert result.inputs == (Tensor("pixels", PIXELS, (-1, *SHAPE), ("photo",)),)
    assert proof["real_rows"] == 5
    assert "6 of one colour" in proof["how"]
    assert "16 of noise" in proof["how"]
    assert proof["rows"] == 5 + 6 + 4 + 16 + 3 * 5
    assert len(result.example["photo"]) < 500  # type: ignore[arg-type]
    with np.load(folder / "out" / "warmup.npz") as warmup:
        assert warmup["in:pixels"].dtype == np.uint8
        given = OnnxExecutor(folder / "out" / "model.onnx", optimised=True).run(
            {"pixels": warmup["in:pixels"]}, ["score"]
        )
        np.testing.assert_allclose(given[0], warmup["out:score"], rtol=1e-5)


def test_without_an_example_there_are_still_images(tmp_path: Path) -> None:
    _, proof = converted(logged(tmp_path / "m", graph(), images(1)), Field("photo", PIXELS, SHAPE))
    assert proof["rows"] > 26
    rows = tmp_path / "rows.npz"
    np.savez(rows, photo=images(300))
    _, more = converted(logged(tmp_path / "n", graph(), images(1)), IMAGE, rows=str(rows))
    assert more["real_rows"] == 128, "half of what a proof compares"
    assert more["rows"] <= 256


def test_columns_may_stand_beside_the_image(tmp_path: Path) -> None:
    example = {"photo": images(3), "price": np.array([[1.0], [2.0], [3.0]])}
    result, _ = converted(logged(tmp_path / "m", graph(price=True), example), IMAGE, PRICE)
    assert [tensor.columns for tensor in result.inputs] == [("photo",), ("price",)]
    assert result.example["price"] == 1.0


def test_a_graph_of_any_size_gets_the_functions(tmp_path: Path) -> None:
    result, _ = converted(logged(tmp_path / "m", graph(shape=["n", "h", "w", 3]), images(2)), IMAGE)
    assert result.inputs[0].shape == (-1, *SHAPE)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (graph(shape=["n", 20, 20, 3]), "does not take the image of its signature"),
        (graph(dtype=TensorProto.FLOAT), "does not take the image of its signature"),
        (graph(out=TensorProto.UINT8), "no reply carries that"),
        (graph(shape=[1, *SHAPE]), "first dimension must be free"),
    ],
)
def test_what_is_refused(tmp_path: Path, model: Any, told: str) -> None:
    with pytest.raises(ConversionRefused, match=told):
        converted(logged(tmp_path / "m", model, images(2)), IMAGE)


def test_a_changed_kernel_is_found() -> None:
    """The proof can fail: one weight of another graph is off by a thousandth."""
    right = graph()
    wrong = onnx.ModelProto()
    wrong.CopyFrom(right)
    kernel = numpy_helper.to_array(wrong.graph.initializer[0]).copy()
    kernel[0, 0, 1, 1] += 1e-3
    wrong.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))

    def asked(model: Any) -> Any:
        session = OnnxExecutor(model.SerializeToString(), optimised=True)
        return lambda rows: {"score": session.run({"pixels": rows["photo"]}, ["score"])[0]}

    with pytest.raises(ParityFailed, match=r"photo = '\[12, 16, 3\] from 0 to 255'"):
        prove(
            asked(right), asked(wrong), {"photo": images(9)}, real_rows=9, threshold_rows=0, tolerance=1e-5, how="test"
        )


def test_memory_is_bounded_by_the_rows_of_a_run() -> None:
    sizes: list[int] = []

    def answer(rows: Arrays) -> Arrays:
        sizes.append(len(rows["photo"]))
        return {"n": np.arange(sizes[-1])}

    count = 2 * IMAGE_PROOF_RUN_ROWS + 3
    assert len(in_parts(answer)({"photo": images(count)})["n"]) == count
    assert sizes == [IMAGE_PROOF_RUN_ROWS, IMAGE_PROOF_RUN_ROWS, 3]


def test_an_example_is_a_png_that_any_reader_takes() -> None:
    (picture,) = images(1)
    assert np.array_equal(np.asarray(Image.open(BytesIO(png(picture)))), picture)
    assert image_example(picture).startswith("iVBORw0KGgo")
