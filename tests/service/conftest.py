"""Fixtures shared by this folder."""

import sys
from collections.abc import Iterator

import pytest
from tests.moderate_fixture import moderate, moderate_pictures
from tests.postgres_fixture import postgres
from tests.redis_fixture import redis_server, redis_url
from tests.topics import scored, topics

from sunup.bundle.packager import Packager

__all__ = ["moderate", "moderate_pictures", "postgres", "redis_server", "redis_url", "scored", "topics"]


@pytest.fixture(autouse=True, scope="module")
def registry_forgotten() -> Iterator[None]:
    """MLflow writes the registry it is to use into the environment, where the next module would find it."""
    yield
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def packager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packager]:
    """A packager that imports its libraries once for all tests of a module."""
    packager = Packager(tmp_path_factory.mktemp("packager") / "packager.log")
    packager.start()
    yield packager
    packager.close()
