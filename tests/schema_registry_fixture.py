"""A real schema registry for tests: Apicurio's, or one that SUNUP_TEST_SCHEMA_REGISTRY names (its URL)."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pytest
from fastavro import parse_schema, schemaless_writer
from tests.ports import free_port

SCRIPT: Final = Path(__file__).resolve().parent.parent / "infra" / "schema-registry.sh"
START_SECONDS_MAX: Final = 60.0
KIND: Final = {"content-type": "application/vnd.schemaregistry.v1+json"}


class SchemaRegistry:
    """`url`: of its Confluent API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def register(
        self,
        schema: Mapping[str, Any],
        kind: str = "AVRO",
        references: Sequence[Mapping[str, Any]] = (),
        subject: str = "",
    ) -> int:
        """The number of a schema, under a subject of its own unless one is named."""
        body: dict[str, Any] = {"schema": json.dumps(schema), "schemaType": kind, "references": list(references)}
        path = f"/subjects/{subject or uuid.uuid4().hex}/versions"
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), KIND, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            number: int = json.load(answer)["id"]
        return number


def framed(number: int, payload: bytes) -> bytes:
    """A value in Confluent's wire format."""
    return b"\0" + number.to_bytes(4, "big") + payload


def avro(schema: Mapping[str, Any], record: Mapping[str, Any], *needed: Mapping[str, Any]) -> bytes:
    """A record as any Avro library writes it."""
    named: dict[str, Any] = {}
    for one in needed:
        parse_schema(dict(one), named_schemas=named)
    written = BytesIO()
    schemaless_writer(written, parse_schema(dict(schema), named_schemas=named), record)
    return written.getvalue()


def _listens(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/subjects", timeout=5).close()
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def schema_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SchemaRegistry]:
    """Shared by the session: use subjects of your own. Without Java and Maven skipped at home, a failure in CI."""
    if given := os.environ.get("SUNUP_TEST_SCHEMA_REGISTRY"):
        yield SchemaRegistry(given.rstrip("/"))
        return
    found = subprocess.run([SCRIPT, "fetch"], capture_output=True, text=True, check=False)
    if found.returncode == 3 and os.environ.get("CI") != "true":
        pytest.skip(found.stderr.strip())
    assert found.returncode == 0, found.stderr
    port, log = free_port(), tmp_path_factory.mktemp("registry") / "log"
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    with log.open("wb") as output:
        process = subprocess.Popen([str(SCRIPT), "run", str(port)], stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not _listens(url):
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")[-2000:]
            assert process.poll() is None, log.read_text("utf-8", "replace")[-2000:]
            time.sleep(0.1)  # the only sign that a server listens is that it does
        yield SchemaRegistry(url)
    finally:
        process.kill()
        process.wait()
