"""handler.py of a function: packed with what it requires, tried before it is deployed, run around the model."""

import json
import re
import sys
from pathlib import Path
from time import monotonic

import pytest
from sklearn.linear_model import LogisticRegression
from tests.handler_fixture import BOTH, FRAME, LABELS, REQUEST, Place, answers, model, place, wheels

from sunup.bundle.declare.file import parse
from sunup.bundle.declare.fit import fit
from sunup.bundle.environment.uv import uv
from sunup.bundle.handler.packages import worker_packages
from sunup.bundle.manifest import Manifest
from sunup.bundle.store import Store, check, read_manifest, verify
from sunup.errors import BundleDamaged, ConversionRefused, UsageError

__all__ = ["model", "place", "wheels"]

# MLflow warns about its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")


def test_a_handler_runs_around_the_model_with_its_own_packages(place: Place) -> None:
    place.write(BOTH, ["tinywords"], [{"a": 0.5, "b": 1.5, "word": "hello"}])
    path = place.store.open(place.pack())
    manifest = read_manifest(path)
    assert isinstance(manifest, Manifest)
    assert manifest.handler is not None
    assert manifest.handler.hooks == ("preprocess", "postprocess")
    assert [(f.name, f.dtype, f.shape) for f in manifest.response] == [
        ("sure", "float64", ()), ("word", "string", ()), ("label", "int64", ()), ("pair", "float64", (2,)),
    ]  # fmt: skip
    assert manifest.example == {"a": 0.5, "b": 1.5, "word": "hello"}
    (one, many), logs, where, quiet = answers(
        path,
        {"a": 0.1, "b": 0.2, "word": "four"},
        [{"a": 1, "b": 1, "word": "x"}, {"a": 0.1, "b": 0.2, "word": "four"}],
    )
    expected = LogisticRegression().fit(FRAME, LABELS).predict_proba(FRAME.iloc[:1].assign(c0=0.1, c1=0.4, c2=4.0))
    assert one[0]["pair"] == pytest.approx(expected[0].tolist())
    assert one[0]["sure"] == max(one[0]["pair"])
    assert one[0]["word"] == "four"
    assert many[1] == one[0]
    assert not logs
    assert where == [str(path / "lib")]
    assert quiet
    check(path)  # running it changed nothing


def test_the_lock_and_every_file_of_the_packages_are_covered(place: Place) -> None:
    place.write(BOTH, ["tinywords"], [{"a": 0.5, "b": 1.5, "word": "hello"}])
    digest = place.pack()
    path = place.store.open(digest)
    lock = (path / "requirements.lock").read_text()
    assert lock.startswith("tinywords==1.0")
    assert "--hash=sha256:" in lock
    assert "://" not in lock
    files = sorted(read_manifest(path).files)
    assert [name for name in files if "/" in name] == [
        "lib/tinywords-1.0.dist-info/METADATA", "lib/tinywords-1.0.dist-info/WHEEL", "lib/tinywords/__init__.py",
    ]  # fmt: skip
    assert place.pack(store=Store(path.parents[1] / "again")) == digest
    code = path / "lib" / "tinywords" / "__init__.py"
    code.write_text(code.read_text().replace("len", "int"))
    for look in (check, verify):
        with pytest.raises(BundleDamaged, match=r"lib/tinywords/__init__\.py does not match"):
            look(path)
    assert place.pack() == digest  # damaged, so made again
    (path / "lib" / "more.py").write_text("")
    with pytest.raises(BundleDamaged, match=r"lib/more\.py does not belong"):
        check(path)


def test_a_bundle_with_packages_is_taken_elsewhere(place: Place, tmp_path: Path) -> None:
    place.write(BOTH, ["tinywords"], [{"a": 0.5, "b": 1.5, "word": "hello"}])
    digest = place.pack()
    other = Store(tmp_path / "other")
    assert other.take(place.store.open(digest)) == digest
    assert (other.open(digest) / "lib" / "tinywords" / "__init__.py").is_file()


def test_what_changes_the_handler_changes_the_bundle(place: Place) -> None:
    plain = "def postprocess(rows, outputs):\n    return {'label': outputs['label']}\n"
    place.write(plain)
    first = place.pack("")
    assert place.pack("") == first
    place.write(plain + "\n")
    assert place.pack("") != first


def test_with_a_response_table_postprocess_gets_its_names(place: Place) -> None:
    place.write(
        "def postprocess(rows, outputs):\n    return {'found': outputs['decision'], 'twice': 2 * outputs['s']}\n"
    )
    text = '[response]\ns = "probability:1"\ndecision = { field = "s", above = 0.5, then = "yes", otherwise = "no" }\n'
    (one,), _, _, _ = answers(place.store.open(place.pack(text)), dict.fromkeys(FRAME, 0.1))
    assert one[0]["found"] == ("yes" if one[0]["twice"] > 1 else "no")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def preprocess(rows)\n    return rows", r"line 1: expected ':'"),
        ("def preproces(rows):\n    return rows", "no hook.*Did you mean `preprocess`"),
        ("x = 1", r"no hook. Known: preprocess\(rows\) and postprocess\(rows, outputs\)"),
        ("def preprocess():\n    return {}", r"line 1: write `def preprocess\(rows\)`"),
        ("async def preprocess(rows):\n    return rows", "a plain function"),
        ("import absent_thing\ndef preprocess(rows):\n    return rows", "line 1: .*absent_thing"),
        ("def preprocess(rows):\n    x = rows\n    return x['nothing']", "line 3: KeyError: 'nothing'"),
        ("def preprocess(rows):\n    raise ValueError('not so')", "line 2: ValueError: not so"),
        ("def preprocess(rows):\n    return {'c0': rows['c0'][:1]}", "1 rows for 8 rows"),
        ("def preprocess(rows):\n    return 7", "returned int, not a dict"),
        ("def preprocess(rows):\n    return {'c0': 1.0}", "no rows for 8 rows"),
        ("def postprocess(rows, outputs):\n    return {}", "no columns"),
        ("def postprocess(rows, outputs):\n    return {'x': [object()] * len(rows['c0'])}", "mixed values"),
        ("def preprocess(rows):\n    return {'c0': rows['c0'] - rows['c0'].mean()}\n", "row 0 gets .* alone and"),
        ("import pandas\ndef preprocess(rows):\n    return rows", "imports .*, which a worker does not have"),
        ("import os\ndef preprocess(rows):\n    os._exit(3)", "ended early"),
    ],
)
def test_a_handler_that_does_not_work_is_not_deployed(place: Place, code: str, says: str) -> None:

    message = place.refused(code)
    assert re.search(says, message), message


def test_a_column_that_nothing_gives_is_named(place: Place) -> None:
    code = "def preprocess(rows):\n    return {'c0': rows['a']}"
    assert "takes 'c1', which neither the request nor preprocess gives" in place.refused(code, request=REQUEST)


def test_what_cannot_be_resolved_is_refused_with_the_resolvers_reason(place: Place) -> None:
    code = "def preprocess(rows):\n    return rows"
    assert "no-such-thing was not found" in place.refused(code, "no-such-thing")
    assert "numpy" in (said := place.refused(code, "oldnumpy"))
    assert worker_packages()["numpy"] in said
    assert "numpy" in place.refused(code, "numpy<2")
    made = f"{place._wheels}/tinywords-1.0-py3-none-any.whl"
    assert "no released version" in place.refused(code, made)


def test_without_uv_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConversionRefused, match="pip install uv"):
        uv("--version", folder=tmp_path, failed="What it names cannot be had")


def test_an_example_of_unknown_fields_is_refused(place: Place) -> None:
    place.write(BOTH, ["tinywords"], [{"aa": 1}])
    with pytest.raises(UsageError, match="`aa`, which is neither a request field nor a feature"):
        place.pack()
    (place.folder / "handler.py").unlink()
    with pytest.raises(UsageError, match=r"is for a handler\.py"):
        place.pack()


FAILING = """
import threading

def preprocess(rows):
    if rows["c0"][0] == 1:
        raise ValueError("secret one")
    if rows["c0"][0] == 2:
        raise KeyError("secret two")
    if rows["c0"][0] == 3:
        return {"c0": rows["c0"][:0]}
    if rows["c0"][0] == 4:
        threading.Event().wait()
    return rows
"""


def test_errors_of_a_handler_go_to_the_log_and_not_to_callers(place: Place) -> None:
    place.write(FAILING)
    path = place.store.open(place.pack(""))
    bodies = [dict.fromkeys(FRAME, float(x)) for x in range(1, 4)]
    (refused, failed, wrong, right), logs, _, _ = answers(path, *bodies, dict.fromkeys(FRAME, 0.0))
    assert refused[:2] == [400, "handler_refused"]
    assert failed[:2] == wrong[:2] == [500, "handler_failed"]
    assert "secret" not in json.dumps([refused, failed, wrong])
    assert "call-7" in refused[2]
    assert [log[0] for log in logs] == ["call-7"] * 3
    assert "secret one" in logs[0][1]
    assert "secret two" in logs[1][1]
    assert "handler.py" in logs[1][1]
    assert right[0]["label"] in (0, 1)


def test_a_handler_that_never_returns_does_not_hold_its_caller(place: Place) -> None:
    place.write(FAILING)
    path = place.store.open(place.pack(""))
    began = monotonic()
    (late,), _, _, _ = answers(path, dict.fromkeys(FRAME, 4.0), seconds=0.5)
    assert late[:2] == [503, "deadline_exceeded"]
    assert monotonic() - began < 20


def test_a_handler_does_not_go_with_images() -> None:
    spec = parse('[request]\npicture = "bytes"\n[image]\nsize = [8, 8]', source="f", name="look")
    with pytest.raises(UsageError, match="takes images, and a handler"):
        fit(spec, (), (), ("preprocess",))
