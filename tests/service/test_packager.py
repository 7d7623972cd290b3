"""The packager and its child as processes: limits, hostile pickles, and what a kill leaves behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from sklearn.linear_model import LogisticRegression
from tests.engine_fixture import until
from tests.models import boosted, fields_of, job, save, table

from sunup.bundle.declare.spec import Spec
from sunup.bundle.declare.write import derive
from sunup.bundle.job import MODEL, Job
from sunup.bundle.pack import SourceModel, pack
from sunup.bundle.packager import Packager
from sunup.bundle.store import Store, verify
from sunup.errors import ConversionRefused

# MLflow warns about its own type hints when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

FRAME, LABELS = table(columns=30, classes=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    """LightGBM over 30 columns, saved by MLflow."""
    folder = tmp_path_factory.mktemp("registry") / "fraud"
    flavor = save(boosted().fit(FRAME, LABELS), FRAME, folder)
    return SourceModel("fraud", "3", "run", flavor, folder, fields_of(FRAME), ("lightgbm==4.7.0",))


def spec_of(model: SourceModel) -> Spec:
    return derive(model.name, model.columns)


class Hostile:
    """A model whose pickle runs code when it is loaded."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code,)


def hostile(folder: Path, code: str) -> Job:
    """A job over an MLflow folder whose pickle is `code`."""
    task = job(LogisticRegression().fit(FRAME, LABELS), FRAME, folder)
    described = folder / "model" / "MLmodel"
    text = described.read_text().replace("model.skops", "model.pkl").replace(": skops\n", ": cloudpickle\n")
    described.write_text(text)
    (folder / "model" / "model.pkl").write_bytes(pickle.dumps(Hostile(code)))
    return task


def test_the_childs_environment_holds_no_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packager: Packager
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    fresh = Packager(tmp_path / "log")
    try:
        task = hostile(tmp_path, "import os; raise RuntimeError(sorted(os.environ))")
        with pytest.raises(ConversionRefused, match="PATH") as caught:
            fresh.convert(task)
        assert "AWS" not in caught.value.message
        assert "PASSWORD" not in caught.value.message
    finally:
        fresh.close()
    assert packager is not fresh


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('not today')", "ValueError: not today"),
        ("import absent_package", "absent_package.*not installed"),
        ("import os; os._exit(3)", "with code 3"),
        ("import os; os.abort()", "signal 6"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import os\nfor fd in range(3, 200):\n  try: os.write(fd, b'junk' * 9)\n  except OSError: pass", "disturbed"),
        ("import os; os.kill(os.getpid(), 9)", "lack of memory"),
        ("x = bytearray(1 << 40)", "more than 8 GiB of memory"),
        ("import os; os.write(1, b'x' * 100_000); print('noise'); raise ValueError('after noise')", "after noise"),
    ],
)
def test_whatever_a_pickle_does_ends_with_its_job(tmp_path: Path, packager: Packager, code: str, reason: str) -> None:
    with pytest.raises(ConversionRefused, match=reason) as caught:
        packager.convert(hostile(tmp_path, code))
    assert "\n" not in caught.value.message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == []


def test_a_job_after_a_bad_one_finds_the_child_warm_and_clean(tmp_path: Path, packager: Packager) -> None:
    with pytest.raises(ConversionRefused):
        packager.convert(hostile(tmp_path / "bad", "import sklearn; sklearn.tainted = 1; raise ValueError"))
    with pytest.raises(ConversionRefused, match="clean"):
        packager.convert(
            hostile(tmp_path / "look", "import sklearn; raise ValueError(getattr(sklearn, 'tainted', 'clean'))")
        )
    started = time.perf_counter()
    packager.convert(job(boosted().fit(FRAME, LABELS), FRAME, tmp_path / "good"))
    assert time.perf_counter() - started < 6.0
    assert (tmp_path / "good" / "out" / MODEL).is_file()


def test_a_conversion_without_end_is_ended(tmp_path: Path) -> None:
    packager = Packager(tmp_path / "log", seconds_max=2)
    try:
        with pytest.raises(ConversionRefused, match="more than 2 s"):
            packager.convert(hostile(tmp_path / "waits", "import threading; threading.Event().wait()"))
        with pytest.raises(ConversionRefused, match="more than 2 s"):
            packager.convert(hostile(tmp_path / "works", "while True: pass"))
    finally:
        packager.close()


def test_a_child_that_died_is_started_again(tmp_path: Path, packager: Packager) -> None:
    task = job(boosted().fit(FRAME, LABELS), FRAME, tmp_path)
    packager.convert(task)
    (child,) = children_of(os.getpid())
    child.kill()
    child.wait(10)
    packager.convert(task)
    assert [c.pid for c in children_of(os.getpid())] != [child.pid]


def test_closing_ends_a_job_in_hand(tmp_path: Path) -> None:
    packager = Packager(tmp_path / "log")
    packager.start()
    reached = tmp_path / "reached"
    code = f"import pathlib, threading; pathlib.Path({str(reached)!r}).touch(); threading.Event().wait()"
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            packager.convert(hostile(tmp_path, code))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    wait_for(reached)
    ((child, grandchild),) = [(c, g) for c in children_of(os.getpid()) for g in c.children()]
    child.kill()
    thread.join(20)
    assert isinstance(outcome[0], ConversionRefused)
    assert psutil.wait_procs([grandchild], timeout=10)[1] == []
    packager.close()


PACKING = """
import sys, pickle
from pathlib import Path
from sunup.bundle.pack import pack
from sunup.bundle.packager import Packager
from sunup.bundle.store import Store
spec, model, root = pickle.loads(Path(sys.argv[1]).read_bytes())
packager = Packager(root / "log")
told = lambda name, _: print(name, flush=True)
pack(Store(root / "bundles"), spec=spec, model=model, packager=packager, on_stage=told)
"""


@pytest.mark.parametrize("until", ["convert", "prove"])
def test_a_kill_while_packing_leaves_no_half_bundle_and_no_process(
    tmp_path: Path, model: SourceModel, packager: Packager, until: str
) -> None:
    (tmp_path / "args").write_bytes(pickle.dumps((spec_of(model), model, tmp_path)))
    process = subprocess.Popen(
        [sys.executable, "-c", PACKING, str(tmp_path / "args")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as output:
        while output.readline().strip() != until:
            assert process.poll() is None, (tmp_path / "log").read_text()
        living = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert psutil.wait_procs(living, timeout=10)[1] == []
    store = Store(tmp_path / "bundles")
    for digest in store.list():
        verify(store.open(digest))
    digest = pack(store, spec=spec_of(model), model=model, packager=packager)
    verify(store.open(digest))
    with store.stage() as staged:
        assert list(staged.parent.iterdir()) == [staged]


def children_of(pid: int) -> list[psutil.Process]:
    """The living packager children of a process."""
    living = [c for c in psutil.Process(pid).children() if c.status() != psutil.STATUS_ZOMBIE]
    return [c for c in living if "sunup.bundle.convert.child" in c.cmdline()]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # another process makes the file; nothing else tells


def test_a_packager_that_is_kept_has_a_child(tmp_path: Path) -> None:
    packager = Packager(tmp_path / "packager.log")

    def child() -> int:
        packager.keep()
        assert packager._child is not None
        return packager._child.pid

    first = child()
    assert child() == first
    os.kill(first, signal.SIGKILL)
    until(lambda: Path(f"/proc/{first}/stat").read_text().split()[2] == "Z", "its end")
    assert child() != first
    packager.close()
