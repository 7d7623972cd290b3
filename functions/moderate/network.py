"""A small convolutional network, trained with numpy alone and written as an ONNX graph of Conv, MaxPool and Gemm.

    uint8 [n, 64, 64, 3] -> (x - 127.5) / 127.5
    -> conv 5x5, 16, stride 2, ReLU -> max 2x2 -> conv 3x3, 32, ReLU -> max 2x2 -> conv 3x3, 48, ReLU
    -> [largest value, mean] of each of the 48 -> linear -> softmax [n, classes]

Backpropagation is written out. Convolutions are products of matrices over unfolded patches ("im2col"), which is as fast
as the machine's BLAS: one pass over an image, forwards and backwards, is about 20 million multiplications.
"""

from typing import Any, Final

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

MIDDLE: Final = 127.5  # of a uint8
LAYERS: Final = ((3, 16, 5, 2), (16, 32, 3, 1), (32, 48, 3, 1))  # channels in, out, width of the kernel, stride
OPSET: Final = 18


class Network:
    """`parameters`: kernels [out, height, width, in], their biases, then weights and bias of the linear layer."""

    def __init__(self, classes: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.classes = classes
        self.parameters: list[Floats] = []
        for within, out, width, _ in LAYERS:
            scale = np.sqrt(2 / (within * width * width))
            self.parameters += [_random(random, scale, (out, width, width, within)), np.zeros(out, np.float32)]
        last = 2 * LAYERS[-1][1]
        self.parameters += [_random(random, np.sqrt(1 / last), (last, classes)), np.zeros(classes, np.float32)]
        self._moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.parameters]
        self._steps = 0

    def probabilities(self, images: NDArray[np.uint8]) -> Floats:
        """float32 [n, classes]."""
        parts = [self._forward(_scaled(images[at : at + 128]))[0] for at in range(0, len(images), 128)]
        return np.concatenate(parts)

    def learn(self, images: NDArray[np.uint8], labels: NDArray[np.int64], rate: float) -> float:
        """One step of Adam on a batch; its mean cross-entropy before the step."""
        given, kept = self._forward(_scaled(images))
        rows = np.arange(len(labels))
        loss = -float(np.log(given[rows, labels] + 1e-9).mean())
        given[rows, labels] -= 1
        self._step(self._backward(given / np.float32(len(labels)), kept), rate)
        return loss

    def _forward(self, x: Floats) -> tuple[Floats, list[Any]]:
        kept: list[Any] = []
        for layer, (_, _, width, stride) in enumerate(LAYERS):
            kernel, bias = self.parameters[2 * layer], self.parameters[2 * layer + 1]
            patches = _patches(x, width, stride)
            y = np.maximum(patches @ kernel.reshape(len(kernel), -1).T + bias, 0)
            kept.append((x.shape, patches, y))
            x = _pooled(y) if layer < len(LAYERS) - 1 else y
        n = len(x)
        flat = x.reshape(n, -1, x.shape[3])
        seen = np.concatenate([flat.max(1), flat.mean(1)], axis=1)
        kept.append((flat, seen))
        scores = seen @ self.parameters[-2] + self.parameters[-1]
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True), kept

    def _backward(self, wrong: Floats, kept: list[Any]) -> list[Floats]:
        """The gradient of each parameter. `wrong`: the loss's gradient by the scores [n, classes]."""
        flat, seen = kept[-1]
        gradients: list[Floats] = [seen.T @ wrong, wrong.sum(0)]
        back = wrong @ self.parameters[-2].T
        channels = flat.shape[2]
        largest = flat == flat.max(1, keepdims=True)
        x = back[:, None, :channels] * largest / largest.sum(1, keepdims=True)
        x = (x + back[:, None, channels:] / flat.shape[1]).reshape(kept[-2][2].shape)
        for layer in reversed(range(len(LAYERS))):
            shape, patches, y = kept[layer]
            if x.shape != y.shape:
                x = _unpooled(x, y)
            x = (x * (y > 0)).reshape(-1, y.shape[3])
            kernel = self.parameters[2 * layer]
            gradients[:0] = [(x.T @ patches.reshape(len(x), -1)).reshape(kernel.shape), x.sum(0)]
            if layer:
                x = _folded((x @ kernel.reshape(len(kernel), -1)).reshape(patches.shape), shape, LAYERS[layer])
        return gradients

    def _step(self, gradients: list[Floats], rate: float) -> None:
        """Adam (Kingma and Ba, 2015), in place."""
        self._steps += 1
        rate *= np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        for at, gradient in enumerate(gradients):
            mean, square = self._moments[at]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            self.parameters[at] -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-8))


def to_onnx(network: Network, size: int) -> Any:
    """The network as a graph: `image` uint8 [-1, size, size, 3] -> `probability` float32 [-1, classes]."""
    constants: list[Any] = []
    nodes: list[Any] = []

    def constant(array: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), f"c{len(constants)}"))
        return str(constants[-1].name)

    def add(op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"n{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    x = add("Cast", "image", to=TensorProto.FLOAT)
    middle = constant(np.array(MIDDLE, np.float32))
    x = add("Transpose", add("Div", add("Sub", x, middle), middle), perm=[0, 3, 1, 2])
    for layer, (_, _, width, stride) in enumerate(LAYERS):
        kernel, bias = (network.parameters[2 * layer + i] for i in (0, 1))
        pads = [width // 2] * 4
        x = add("Conv", x, constant(kernel.transpose(0, 3, 1, 2)), constant(bias), strides=[stride] * 2, pads=pads)
        x = add("Relu", x)
        if layer < len(LAYERS) - 1:
            x = add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    seen = add("Concat", add("GlobalMaxPool", x), add("GlobalAveragePool", x), axis=1)
    scores = add("Gemm", add("Flatten", seen), constant(network.parameters[-2]), constant(network.parameters[-1]))
    add("Softmax", scores, output="probability", axis=1)
    graph = helper.make_graph(
        nodes,
        "moderate",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", size, size, 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", network.classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _random(random: np.random.Generator, scale: float, shape: tuple[int, ...]) -> Floats:
    return (random.normal(size=shape) * scale).astype(np.float32)


def _scaled(images: NDArray[np.uint8]) -> Floats:
    return (images.astype(np.float32) - np.float32(MIDDLE)) / np.float32(MIDDLE)


def _patches(x: Floats, width: int, stride: int) -> Floats:
    """[n, h, w, c] -> [n, h / stride, w / stride, width * width * c], zeros beyond the edges."""
    pad = width // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(padded, (width, width), (1, 2))[:, ::stride, ::stride]
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(*windows.shape[:3], -1)


def _folded(patches: Floats, shape: tuple[int, ...], layer: tuple[int, int, int, int]) -> Floats:
    """The gradient by x from that by its patches; of layers without stride."""
    within, _, width, _ = layer
    n, high, wide, _ = shape
    pad = width // 2
    x = np.zeros((n, high + 2 * pad, wide + 2 * pad, within), np.float32)
    parts = patches.reshape(n, high, wide, width, width, within)
    for i in range(width):
        for j in range(width):
            x[:, i : i + high, j : j + wide] += parts[:, :, :, i, j]
    return x[:, pad : pad + high, pad : pad + wide]


def _pooled(y: Floats) -> Floats:
    n, high, wide, c = y.shape
    pooled: Floats = y.reshape(n, high // 2, 2, wide // 2, 2, c).max((2, 4))
    return pooled


def _unpooled(x: Floats, y: Floats) -> Floats:
    """The gradient by y from that by its largest values; of equal ones each gets it, which happens at zero only."""
    wide = x.repeat(2, 1).repeat(2, 2)
    largest = _pooled(y).repeat(2, 1).repeat(2, 2)
    return np.where(y == largest, wide, np.float32(0))
