"""The function that looks at pictures: trained, registered, deployed, and called in every protocol and through a topic;
each answer is what the registered graph says of the picture as the documentation turns it into a tensor."""

import json
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from tests.fraud_fixture import ROOT
from tests.moderate_fixture import CLOSE, Served, in_base64
from tests.pictures import encoded

from functions.moderate.pictures import LABELS, Studio
from functions.moderate.train import HELDOUT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of importing the clients, MLflow and what they import: theirs
    import pandas as pd
    import tritonclient.http as triton  # type: ignore[import-untyped, unused-ignore]
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped, unused-ignore]

pytestmark = pytest.mark.timeout(600)  # the first test waits for a training


@pytest.fixture
def served(moderate: Served) -> Served:
    return moderate


@pytest.fixture
def pictures(moderate_pictures: list[bytes]) -> list[bytes]:
    return moderate_pictures


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_body_that_is_a_picture(served: Served, pictures: list[bytes]) -> None:
    kinds = ("image/jpeg", "image/png", "image/webp")
    for at, picture in enumerate(pictures):
        answer = served.post(picture, kinds[at % 3])
        assert answer.status == 200, answer
        served.check(answer.json["predictions"], [picture])
        assert "decode;dur=" in answer.headers["server-timing"]


def test_records_in_json_fail_one_by_one(served: Served, pictures: list[bytes]) -> None:
    good = [{"image": in_base64(p)} if at % 2 else {"image": {"b64": in_base64(p)}} for at, p in enumerate(pictures)]
    cut = {"image": in_base64(pictures[0][:-300])}
    animal = {"image": {"b64": in_base64(b"GIF89a")}}
    answer = served.post(json.dumps([cut, *good, animal]).encode(), "application/json")
    assert answer.status == 200
    first, *middle, last = answer.json["predictions"]
    served.check(middle, pictures)
    assert (first["error"]["code"], last["error"]["code"]) == ("invalid_image", "unknown_image")
    assert first["error"]["field"] == "image"
    single = served.post(json.dumps(good[0]).encode(), "application/json")
    served.check(single.json["predictions"], pictures[:1])


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "image/jpeg", 400, "unknown_image"),
        (b"GIF89a", "image/png", 400, "unknown_image"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", 400, "invalid_image"),
        (b"\xff\xd8\xff\xe0", "image/png", 400, "image_type_mismatch"),
        (b"\xff\xd8\xff\xe0", "image/tiff", 415, "unsupported_media_type"),
        (b"\xff\xd8\xff\xe0", "video/mp4", 415, "unsupported_media_type"),
        (b"x" * (8 * 1024**2 + 1), "image/jpeg", 413, "too_large"),
        (b'{"image": "!"}', "application/json", 400, "wrong_type"),
        (b'{"picture": ""}', "application/json", 400, "unknown_field"),
    ],
)
def test_refusals(served: Served, body: bytes, kind: str, status: int, code: str) -> None:
    answer = served.post(body, kind)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


def test_the_other_protocols(served: Served, pictures: list[bytes]) -> None:
    texts = [in_base64(picture) for picture in pictures]
    bodies = {
        "/v1/models/moderate:predict": {"instances": [{"image": {"b64": text}} for text in texts]},
        "/functions/moderate/invocations": {"dataframe_split": {"columns": ["image"], "data": [[t] for t in texts]}},
    }
    for target, body in bodies.items():
        answer = served.post(json.dumps(body).encode(), "application/json", target)
        assert answer.status == 200, answer
        served.check(answer.json["predictions"], pictures)
    csv = served.post("\n".join(["image", *texts[:3]]).encode(), "text/csv", "/functions/moderate/invocations")
    served.check(csv.json["predictions"], pictures[:3])
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": texts[:1]}
    refused = served.post(
        json.dumps({"inputs": [tensor | {"data": ["AAAA"]}]}).encode(), "application/json", "/v2/models/moderate/infer"
    )
    assert (refused.status, "no image" in refused.json["error"]) == (400, True)


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_own_client(served: Served, pictures: list[bytes], binary: bool) -> None:
    given = [p if binary else in_base64(p).encode() for p in pictures]
    values = np.array(given, dtype=object)
    with triton.InferenceServerClient(f"127.0.0.1:{served.engine.port}", network_timeout=20) as client:
        (declared,) = client.get_model_metadata("moderate")["inputs"]
        assert declared == {"name": "image", "datatype": "BYTES", "shape": [-1]}
        tensor = triton.InferInput("image", [len(values)], "BYTES").set_data_from_numpy(values, binary_data=binary)
        found = client.infer("moderate", [tensor])
        columns = {name: found.as_numpy(name) for name in (*LABELS, "decision")}
        served.check([{n: _plain(c[at]) for n, c in columns.items()} for at in range(len(pictures))], pictures)
        bad = triton.InferInput("image", [1], "BYTES").set_data_from_numpy(np.array([b"QUJD"], dtype=object))
        with pytest.raises(InferenceServerException, match="no image"):
            client.infer("moderate", [bad])


def test_mlflows_own_client(served: Served, pictures: list[bytes]) -> None:
    place = urlsplit(f"http://127.0.0.1:{served.engine.port}/functions/moderate")
    client = ScoringServerClient(place.hostname, f"{place.port}{place.path}")
    client.ping()
    table = pd.DataFrame({"image": [in_base64(picture) for picture in pictures]})
    served.check(client.invoke(table)["predictions"], pictures)


def test_the_pages_say_that_it_is_a_picture(served: Served) -> None:
    described = served.engine.ask("GET", "/functions/moderate").json
    assert "oneOf" in described["request"]["properties"]["image"]
    example = json.dumps(described["examples"][0]).encode()
    assert served.post(example, "application/json").status == 200, "the example can be sent as it is"
    document = served.engine.ask("GET", "/openapi.json").json
    content = document["paths"]["/functions/moderate"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "image/jpeg", "image/png", "image/webp"}


def test_a_slow_picture_holds_up_no_other_call(served: Served) -> None:
    """While a picture of 36 megapixels is decoded, what needs no decoding is answered at once."""
    slow = encoded(Image.new("RGB", (6000, 6000), (90, 120, 30)), "PNG")
    served.post(slow, "image/png")
    with ThreadPoolExecutor(1) as thread:
        decoding = thread.submit(served.post, slow, "image/png")
        waits = []
        while not decoding.done():
            began = time.perf_counter()
            assert served.engine.ask("POST", "/functions/moderate", b"{}").status == 400
            waits.append(time.perf_counter() - began)
    took = float(decoding.result().headers["server-timing"].partition("decode;dur=")[2].partition(",")[0])
    assert took > 200, "it was slow"
    assert len(waits) > 3
    assert np.median(waits) < 0.1


def test_the_example_client(served: Served, pictures: list[bytes], tmp_path: Path) -> None:
    files = [tmp_path / f"{at}.{kind}" for at, kind in enumerate(("jpg", "png", "webp"))]
    for file, picture in zip(files, pictures, strict=False):
        file.write_bytes(picture)
    script, url = (
        str(ROOT / "examples" / "image_client.py"),
        f"http://127.0.0.1:{served.engine.port}/functions/moderate",
    )

    def run(*names: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, *map(str, names), "--url", url]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for some in (files[:1], files):
        lines = run(*some).stdout.splitlines()
        served.check([json.loads(line.partition(": ")[2]) for line in lines], pictures[: len(some)])
    files[0].write_bytes(b"GIF89a")
    refused = run(files[0])
    assert (refused.returncode, refused.stderr) == (1, "400: this is GIF; JPEG, PNG and WebP are read\n")


def test_the_proof_is_of_pictures(served: Served) -> None:
    (bundle,) = [path for path in served.engine.project.bundles.iterdir() if (path / "manifest.json").exists()]
    proof = json.loads((bundle / "parity.json").read_bytes())
    assert proof["real_rows"] == 24
    assert proof["rows"] >= 80
    assert "16 of noise" in proof["how"]
    assert proof["max_abs"] < CLOSE


# --- what it is worth -------------------------------------------------------------------------------------------------


def test_even_little_training_beats_what_sees_no_shapes(served: Served) -> None:
    metrics = dict(part.split(" ") for part in served.printed.splitlines()[-1].split(": ")[1].split(", "))
    assert float(metrics["accuracy"]) > float(metrics["baseline_accuracy"]) + 0.05
    assert float(metrics["text_roc_auc"]) > 0.85


def test_held_out_pictures_are_made_of_other_pixels_and_digits() -> None:
    again, other = (Studio(part).make(60) for part in ("heldout", "heldout"))
    assert np.array_equal(again.images, other.images), "the same seed gives the same pictures"
    assert HELDOUT % len(LABELS) == 0
    assert np.bincount(again.labels).tolist() == [20, 20, 20]


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else float(value)
