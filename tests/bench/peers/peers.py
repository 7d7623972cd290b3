"""Other model servers, each with the benches' model, one worker, and its packages in an environment of its own.

The settings are those their documentation names for speed; the programs are the *_app.py beside this file, the pinned
packages the *.txt.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from tests.bench import harness
from tests.ports import free_port

HERE = Path(__file__).parent
ENVIRONMENTS = Path.home() / ".cache" / "sunup" / "peers"
START_SECONDS_MAX = 120.0

Row = Sequence[float]


class Peer(NamedTuple):
    """A server. `command(bin, folder, model, port)`: what starts it; `folder` is empty and its own.

    `target`: the path of the call; `body(row)` what is sent, `score(answer)` what came. `pins`: whose packages it has,
    if not those of its own name.
    """

    command: Callable[[Path, Path, Path, int], list[str]]
    target: str
    body: Callable[[Row], Any]
    score: Callable[[Any], float]
    pins: str = ""


def _record(row: Row) -> Any:
    return {f"f{i}": value for i, value in enumerate(row)}


def _app(name: str) -> Callable[[Path, Path, Path, int], list[str]]:
    return lambda bin, _folder, model, port: [str(bin / "python"), str(HERE / f"{name}_app.py"), str(model), str(port)]


def _bentoml(app: str) -> Callable[[Path, Path, Path, int], list[str]]:
    serve = ["serve", f"{app}:Score", "--host", "127.0.0.1", "--port"]
    return lambda bin, _folder, _model, port: [str(bin / "bentoml"), *serve, str(port)]


def _mlserver(bin: Path, folder: Path, model: Path, port: int, **more: Any) -> list[str]:
    server = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (folder / "settings.json").write_text(json.dumps({**server, "parallel_workers": 0, "debug": False}))
    own = {"name": "score", "implementation": "mlserver_app.Score", "parameters": {"uri": str(model)}, **more}
    (folder / "model-settings.json").write_text(json.dumps(own))
    return [str(bin / "mlserver"), "start", str(folder)]


def _mlflow(_bin: Path, folder: Path, model: Path, port: int) -> list[str]:
    """MLflow is installed with Sunup: its scoring server, of the same graph as its flavour onnx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of importing MLflow: its own
        import mlflow.onnx
        import numpy as np
        import onnx

        row = np.zeros((1, 30), np.float32)
        signature = mlflow.models.infer_signature(row, {"probability": np.zeros((1, 2), np.float32)})
        mlflow.onnx.save_model(onnx.load(model), folder / "model", signature=signature)
    serve = ["-m", str(folder / "model"), "-h", "127.0.0.1", "-p", str(port), "-w", "1", "--env-manager", "local"]
    return [sys.executable, "-m", "mlflow", "models", "serve", *serve]


PEERS: Mapping[str, Peer] = {
    "litserve": Peer(_app("litserve"), "/predict", _record, lambda said: said["score"]),
    "mlserver": Peer(
        _mlserver,
        "/v2/models/score/infer",
        lambda row: {"inputs": [{"name": "input", "shape": [1, len(row)], "datatype": "FP32", "data": [*row]}]},
        lambda said: said["outputs"][0]["data"][0],
    ),
    "mlflow": Peer(
        _mlflow, "/invocations", lambda row: {"inputs": [[*row]]}, lambda said: said["predictions"]["probability"][0][1]
    ),
    "bentoml": Peer(_bentoml("bentoml_app"), "/predict", lambda row: {"row": [*row]}, lambda said: said["score"]),
    "kserve": Peer(
        _app("kserve"),
        "/v1/models/score:predict",
        lambda row: {"instances": [[*row]]},
        lambda said: said["predictions"][0],
    ),
    "ray": Peer(_app("ray"), "/score", _record, lambda said: said["score"]),
}


def _mlserver_batching(bin: Path, folder: Path, model: Path, port: int) -> list[str]:
    return _mlserver(bin, folder, model, port, max_batch_size=64, max_batch_time=0.002)


BATCHING: Mapping[str, Peer] = {  # the two that batch adaptively, told to
    "mlserver": PEERS["mlserver"]._replace(command=_mlserver_batching),
    "bentoml": Peer(
        _bentoml("bentoml_batch_app"), "/predict", lambda row: {"rows": [[*row]]}, lambda said: said[0], "bentoml"
    ),
}


def bodies(peer: Peer, rows: Sequence[Row]) -> list[bytes]:
    """The calls of these rows, as the peer takes them."""
    return [json.dumps(peer.body(row)).encode() for row in rows]


@contextmanager
def running(
    name: str, model: Path, folder: Path, first: bytes, among: Mapping[str, Peer] = PEERS
) -> Iterator[tuple[str, float]]:
    """A peer, pinned to the server core: the URL of its call, and seconds from its start to the answer to `first`."""
    peer, port = among[name], free_port()
    folder.mkdir()
    bin = environment(peer.pins or name)
    command = peer.command(bin, folder, model, port)
    url = f"http://127.0.0.1:{port}{peer.target}"
    path = f"{bin}{os.pathsep}{os.environ['PATH']}"
    given = {"MODEL": str(model), "PATH": path, "PYTHONPATH": str(HERE), "BENTOML_DO_NOT_TRACK": "true"}
    with (folder / "log").open("wb") as log:
        begun = time.monotonic()
        process = subprocess.Popen(
            ["taskset", "-c", str(harness.SERVER_CORE), *command],
            env={**os.environ, **given},
            cwd=HERE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        took = _first_answer(url, first, begun, process, folder / "log")
        yield url, took
    finally:
        end(process)


def environment(name: str) -> Path:
    """The folder of the programs of a peer's own environment, made if it is not there."""
    pins = HERE / f"{name}.txt"
    if not pins.exists():
        return Path(sys.executable).parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = ENVIRONMENTS / hashlib.sha256(pins.read_bytes() + version.encode()).hexdigest()[:16]
    if not (target / ".made").exists():
        shutil.rmtree(target, ignore_errors=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(target)], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(target / "bin" / "python"), "-r", str(pins)]
        subprocess.run(install, check=True)
        (target / ".made").touch()
    return target / "bin"


def _first_answer(url: str, body: bytes, begun: float, process: subprocess.Popen[bytes], log: Path) -> float:
    while time.monotonic() - begun < START_SECONDS_MAX and process.poll() is None:
        try:
            harness.post_json(url, body)
        except (OSError, urllib.error.URLError):
            time.sleep(0.01)
        else:
            return time.monotonic() - begun
    raise RuntimeError(f"{process.args!r} did not answer:\n{log.read_text()[-2000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server, the leader of a session, with all it started, wherever that went."""
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=10)
    for left in alive:  # not all of them end by being asked
        left.kill()
    process.wait()
