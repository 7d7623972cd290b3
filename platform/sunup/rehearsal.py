"""One whole cold start on a tiny bundle, done before any worker is forked.

The first model a process loads also sets up ONNX Runtime, the array reader, the JSON codecs and much else that is made
on first use. A nursery that has been through it once passes all of that on, and each of its workers starts some
milliseconds sooner. Nothing stays behind: no thread, no file, no session.
"""

import tempfile
from math import inf
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from sunup.bundle.manifest import FORMAT, Limits, Manifest, Model, Scale
from sunup.bundle.store import MANIFEST, Store, digest_file
from sunup.function import MODEL, WARMUP, load
from sunup.pipeline import Pipeline
from sunup.types import Field, ResponseField, Tensor

# An ONNX graph of one node, y = x on float64 [-1, 1]. Written out, because making it takes a library no worker imports.
_IDENTITY: Final = bytes.fromhex(
    "08083a3b0a100a017812017922084964656e746974791201675a110a0178120c0a0a080b12060a000a02080162110a0179"
    "120c0a0a080b12060a000a02080142040a001011"
)


def rehearse() -> None:
    """Make a bundle, load it twice (proving, then not), answer one call, and forget it. Takes tens of milliseconds."""
    with tempfile.TemporaryDirectory(prefix="sunup-") as folder:
        bundle = _make(Store(Path(folder)))
        load(bundle, settings={}, prove=True).executor.close()
        function = load(bundle, settings={}, prove=False)
    native, oip = function.record_codec(revision=1), function.oip_codec()
    reply = Pipeline(function).answer_now(native.decode(b'{"x": 1}', id="rehearsal", deadline=inf))
    native.encode(reply)
    oip.encode(reply)
    function.executor.close()


def _make(store: Store) -> Path:
    rows: dict[str, Any] = {"in:x": np.ones((1, 1)), "out:y": np.ones((1, 1))}
    with store.stage() as staged:
        (staged / MODEL).write_bytes(_IDENTITY)
        with (staged / WARMUP).open("wb") as file:
            np.savez(file, **rows)
        manifest = Manifest(
            format=FORMAT,
            sunup="",
            function="rehearsal",
            model=Model("rehearsal", "1", "", "onnx"),
            request=(Field("x", "float64"),),
            inputs=(Tensor("x", "float64", (-1, 1), ("x",)),),
            outputs=(Tensor("y", "float64", (-1, 1)),),
            response=(ResponseField("y", "float64", output="y"),),
            tolerance=0.0,
            scale=Scale(),
            limits=Limits(),
            example={"x": 1.0},
            files={name: digest_file(staged / name) for name in (MODEL, WARMUP)},
        )
        (staged / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        return store.open(store.add(staged))
