"""A picture to a function, over HTTP with nothing but the standard library: `moderate` says what it shows.

    python -m functions.moderate.train
    platform deploy moderate
    python examples/image_client.py picture.jpg [another.png ...] [--url http://127.0.0.1:8000/functions/moderate]

One picture is sent as it is, with its content type. Several go into one call as JSON, in base64, and each fails alone.
"""

import argparse
import json
import mimetypes
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

URL = "http://127.0.0.1:8000/functions/moderate"


def ask(url: str, files: Sequence[Path]) -> list[dict[str, Any]]:
    """One answer for each picture. Raises urllib.error.HTTPError with the reason where the whole call is refused."""
    if len(files) == 1:
        kind = mimetypes.guess_type(files[0].name)[0] or "application/octet-stream"
        body = files[0].read_bytes()
    else:
        kind = "application/json"
        body = json.dumps([{"image": {"b64": b64encode(file.read_bytes()).decode()}} for file in files]).encode()
    request = urllib.request.Request(url, body, {"content-type": kind})
    with urllib.request.urlopen(request, timeout=30) as response:
        predictions: list[dict[str, Any]] = json.load(response)["predictions"]
    return predictions


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask a function what pictures show.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--url", default=URL)
    given = parser.parse_args()
    try:
        answers = ask(given.url, given.files)
    except urllib.error.HTTPError as error:
        with error:
            print(f"{error.code}: {json.load(error)['error']['message']}", file=sys.stderr)
        return 1
    for file, answer in zip(given.files, answers, strict=True):
        print(f"{file.name}: {json.dumps(answer)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
