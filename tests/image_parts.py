"""Images for tests, small and made in a moment."""

import os
from pathlib import Path
from typing import Final

import pytest
from tests.small_bundle import logistic, make_bundle
from tests.unit.working import ROWS

from sunup.engine.kubernetes.image.layer import Entry, folder, read_layer, write_layer
from sunup.engine.kubernetes.image.model import Image

_RUN: Final = {"Entrypoint": ["/usr/bin/run"], "User": "65532", "Env": ["PATH=/usr/bin"]}


def runtime_image(scratch: Path) -> Image:
    """A small image in the place of the runtime's: two layers, an entrypoint and a user. Each time another one."""
    write_layer([folder("tmp", anyone=True), Entry("etc/name", 0o644, data=b"runtime")], scratch / "first")
    write_layer([Entry("usr/bin/run", 0o755, data=os.urandom(200_000))], scratch / "second")
    return written(scratch)


def written(scratch: Path) -> Image:
    """What `runtime_image` made there."""
    layers = (read_layer(scratch / "first"), read_layer(scratch / "second"))
    return Image(layers, _RUN, {"org.opencontainers.image.title": "runtime"})


@pytest.fixture(scope="session")
def image_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a function whose name is none for a repository."""
    made = tmp_path_factory.mktemp("bundles")
    return made / make_bundle(made, logistic(3), ROWS, function="Fraud_Check")
