"""An engine that serves the tree model of the benches, as those that load it need it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import harness
from tests.bench.models import rows, tree_model
from tests.small_bundle import make_bundle


@contextmanager
def scoring_engine(folder: Path) -> Iterator[tuple[Path, str]]:
    """The model's file in `folder`, and where an engine on the server core takes calls for it."""
    model = folder / "model.onnx"
    model.write_bytes(tree_model())
    with harness.local_engine(folder / "p") as engine:
        digest = make_bundle(engine.project.bundles, model.read_bytes(), rows(8, seed=3), dtype="float32")
        url = engine.deploy("score", digest, settings={}, on_event=lambda _: None)["url"]
        harness.pin(engine.pids().values(), harness.SERVER_CORE)
        yield model, url
