"""The rules of STYLE.md and ARCHITECTURE.md that a program can check: who imports whom, sizes, words, places."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from tests.worker_modules import WORKER_MODULES, imported

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "platform" / "sunup"
TOP_LEVEL: Final = {
    ".ci",
    ".gitignore",
    "LICENSE",
    "Makefile",
    "README.md",
    "examples",
    "features",
    "functions",
    "infra",
    "platform",
    "pyproject.toml",
    "tests",
}

# --- Who may import whom: ARCHITECTURE.md, section 3 ----------------------------------------------------------------
VOCABULARY: Final = {"sunup", "types", "errors", "limits", "clock", "cron", "settings", "secret", "recent", "observer"}
PARTS: Final = {
    "access", "wire", "lookup", "batch", "execute", "bundle", "registry", "scale", "link", "stream", "served"
}  # fmt: skip
SERVING: Final = VOCABULARY | PARTS - {"registry", "scale", "stream"} | {"pipeline", "function", "rehearsal"}
MAY_IMPORT: Final = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    **{name: VOCABULARY | {name} for name in PARTS},
    "pipeline": SERVING,
    "function": SERVING,
    "rehearsal": SERVING,
    "serve": SERVING | {"serve", "stream"},
    "engine": VOCABULARY | {"access", "link", "bundle", "scale", "engine"},
}
MAY_ALSO_IMPORT: Final = {
    # The packager's child proves a model with the executor that will serve it, and profiles its training sample.
    "sunup.bundle.convert": {"execute", "served"},
    "sunup.bundle.handler.child": {"batch", "execute"},  # tried with the code that will run it
    "sunup.stream.aggregate": {"lookup"},  # writes views where lookups read them
    "sunup.stream.aggregate.kept": {"lookup"},  # the same
    "sunup.stream.loop": SERVING,  # a transport of the pipeline; the brokers beside it know nothing of one
    "sunup.stream.scoring": SERVING,  # the same
}
# Parts of packages that exist for the deploy side only.
DEPLOY_ONLY_BELOW: Final = "lookup.compile bundle.convert bundle.environment bundle.handler bundle.pack bundle.packager"
DEPLOY_ONLY: Final = tuple(f"sunup.{name}" for name in f"{DEPLOY_ONLY_BELOW} served.skew".split())
SERVING_ONLY: Final = {"pipeline", "function", "rehearsal", "serve", "stream"}

# The one place (or few) where a third-party name may appear, as path prefixes below platform/sunup.
HOMES: Final = {
    **dict.fromkeys(["lightgbm", "onnx", "onnxmltools", "pandas", "skl2onnx", "sklearn"], ("bundle/convert/",)),
    "xgboost": ("bundle/convert/",),
    "PIL": ("wire/image/pixels.py",),
    "click": ("cli/",),
    "feast": ("lookup/compile/",),
    "google": ("lookup/compile/",),
    "hiredis": ("lookup/stores/redis/link.py", "lookup/writing/redis/wire.py"),
    "httptools": ("serve/",),
    "confluent_kafka": ("stream/kafka/confluent/",),
    "fastavro": ("wire/",),
    "kafka": ("stream/kafka/",),
    "keras": ("bundle/convert/neural/",),
    "kubernetes": ("engine/kubernetes/cluster/",),
    "matplotlib": ("served/skew/plot.py",),
    "mlflow": ("registry/mlflow.py", "bundle/convert/"),
    "mmh3": ("lookup/",),
    "msgspec": ("",),
    "numpy": ("",),
    "onnxruntime": ("execute/onnx.py",),
    "opentelemetry": ("serve/telemetry/spans.py",),
    "prometheus_client": ("serve/",),
    "psycopg": ("lookup/stores/postgres/", "lookup/writing/postgres/"),
    "pyarrow": ("bundle/convert/", "served/parquet.py", "served/skew/reading.py"),
    "rich": ("cli/",),
    "skops": ("bundle/convert/skops.py",),
    "sqlalchemy": ("registry/mlflow.py",),
    "starlette": ("serve/",),
    "tf2onnx": ("bundle/convert/neural/",),
    "torch": ("bundle/convert/neural/",),
    "urllib3": ("engine/kubernetes/image/", "engine/kubernetes/cluster/"),
    "uvloop": ("serve/",),
    "yaml": ("engine/kubernetes/", "registry/", "lookup/compile/"),
}

LINES_MAX: Final = 300
FUNCTION_LINES_MAX: Final = 50
METHODS_MAX: Final = 8
FILES_MAX: Final = 10


def shown(path: Path) -> str:
    """A path as test ids and messages show it."""
    return path.relative_to(ROOT).as_posix()


class Import(NamedTuple):
    """One imported module. `inside`: in a function; `typing`: only seen by type checkers."""

    module: str
    line: int
    last_line: int
    inside: bool
    typing: bool


def sources(*folders: str) -> list[Path]:
    """Python files of the repository below `folders`."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


OWN: Final = sources("platform/sunup")
ALL: Final = sources("platform", "functions", "features", "examples", "tests")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """The row of the import table a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "sunup"


MODULES: Final = {name_of(path): path for path in OWN}


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text("utf-8"))
    inside = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
    }
    typing = {
        id(n)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for n in ast.walk(block)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from sunup.cli import compose` imports a module; `from sunup.types import Row` a name of one.
            whole = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names = [module if module in MODULES else str(node.module) for module in whole.values()]
        for name in dict.fromkeys(names):
            first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)
            yield Import(name, first, last, id(node) in inside, id(node) in typing)


@pytest.mark.parametrize("path", OWN, ids=shown)
def test_imports_follow_the_table(path: Path) -> None:
    unit = unit_of(name_of(path))
    also = (MAY_ALSO_IMPORT.get(name, set()) for name in (name_of(path), name_of(path.parent / "__init__.py")))
    allowed = MAY_IMPORT.get(unit, set()).union(*also)
    for found in imports(path):
        where = f"{shown(path)}:{found.line} imports {found.module}"
        top = found.module.split(".")[0]
        if top == "sunup":
            assert unit == "cli" or unit_of(found.module) in allowed, where
            assert unit not in SERVING_ONLY or not f"{found.module}.".startswith(
                tuple(f"{name}." for name in DEPLOY_ONLY)
            ), where
        elif top not in sys.stdlib_module_names:
            below = path.relative_to(PACKAGE).as_posix()
            assert below.startswith(HOMES.get(top, ("nowhere",))), where


@pytest.mark.parametrize("path", OWN, ids=shown)
def test_an_import_inside_a_function_says_why(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    for found in imports(path):
        if found.inside:
            assert "#" in "".join(lines[found.line - 2 : found.last_line]), (
                f"{shown(path)}:{found.line}: {lines[found.line - 1].strip()}"
            )


def test_no_import_cycles() -> None:
    graph = {
        module: {i.module for i in imports(path) if i.module in MODULES and i.module != module and not i.typing}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("path", ALL, ids=shown)
def test_sizes(path: Path) -> None:
    text = path.read_text("utf-8")
    where = shown(path)
    count = len(text.splitlines())
    assert count <= LINES_MAX or text.startswith("# Longer than "), f"{where} has {count} lines and does not say why"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{where}:{node.lineno} {node.name} has {lines} lines"
        elif isinstance(node, ast.ClassDef):
            methods = [
                n.name
                for n in node.body
                if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
                and not n.name.startswith("_")
                and not any(ast.unparse(d) in ("property", "overload") for d in n.decorator_list)
            ]
            assert len(methods) <= METHODS_MAX, f"{where}:{node.lineno} {node.name}: {', '.join(methods)}"
            word = re.match(r"(Abstract|Base)|.*(Manager|Utils?|Helper|Impl)$", node.name)
            assert not word, f"{where}:{node.lineno}: {node.name} says nothing"


@pytest.mark.parametrize("folder", sorted({path.parent for path in OWN} - {PACKAGE}), ids=shown)
def test_a_package_has_few_files(folder: Path) -> None:
    files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= FILES_MAX, f"{shown(folder)}: {', '.join(sorted(files))}"


@pytest.mark.parametrize("path", OWN, ids=shown)
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), f"{shown(path)} does not say what it is"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{shown(path)}:{node.lineno}: {node.name} has no docstring"


def repository_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_is_what_it_should_be() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in repository_files()} == TOP_LEVEL
    # A package called `platform` would shadow the standard library's module.
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_no_file_names_a_registry_host_or_a_place_on_one_machine() -> None:
    hosts = [
        "pypi" + ".org",
        "python" + "hosted.org",
        "npm" + "js.org",
        "npm" + "js.com",
        "crates" + ".io",
        "deb" + ".debian.org",
    ]
    words = [*hosts, "/" + "work/", "/" + "root/", "TO" + "DO", "FIX" + "ME", "X" * 3]
    pattern = re.compile("|".join(map(re.escape, words)))
    for path in repository_files():
        for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), start=1):
            assert not pattern.search(line), f"{shown(path)}:{number}: {line.strip()[:100]}"


FRESH: Final = ("worker", "nursery", "streams.worker", "streams.watcher", "pod.__main__", "pod.calls", "pod.stream")


@pytest.mark.parametrize("module", [f"serve.{name}" for name in FRESH])
def test_a_fresh_worker_imports_only_what_it_is_allowed(module: str) -> None:
    assert imported(f"import sunup.{module}") <= WORKER_MODULES


@pytest.mark.parametrize(
    ("role", "settings", "more"),
    [
        ("stream", {"stream_broker": "embedded"}, set()),
        ("watcher", {"stream_broker": "embedded"}, set()),
        ("stream", {"stream_broker": "a:1"}, {"kafka", "google_crc32c", "crc32c"}),
        ("watcher", {"stream_broker": "a:1"}, {"kafka", "google_crc32c", "crc32c"}),
        ("stream", {"stream_broker": "a:1", "stream_client": "confluent-kafka"}, {"confluent_kafka"}),
    ],
)
def test_what_speaks_to_a_broker_is_imported_where_it_is_used(
    role: str, settings: dict[str, str], more: set[str]
) -> None:
    spec = {"role": role, "settings": settings}
    assert imported(f"from sunup.serve.worker import prepare; prepare({spec})") <= WORKER_MODULES | more
