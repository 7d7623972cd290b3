"""The source of on-demand views: what a worker can run of it, what is refused, and how it is written down."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sunup.lookup.compile.on_demand.source import MODULES, Refused, read, render
from sunup.lookup.derive.made import giver, taker
from sunup.lookup.derive.view import load_makers

HEAD = "@on_demand_feature_view(sources=[asked], schema=[Field('x', Int64)], mode='python')\n"


def function_of(source: str, folder: Path) -> Any:
    file = folder / "features.py"
    file.write_text(render([read(source)]), "utf-8")
    return load_makers(file)["view_0"]()


def test_a_function_is_kept_and_what_stands_around_it_is_not(tmp_path: Path) -> None:
    source = HEAD + (
        "def f(inputs: Dict[str, Any]) -> pd.DataFrame:\n"
        "    # how it is worked out\n"
        "    import json\n"
        "    from collections import Counter as Count\n"
        "    total: Unknown = np.sum(inputs['x'])\n"
        "    half = lambda v: v / 2\n"
        "    def again(n):\n"
        "        return 0 if n == 0 else again(n - 1)\n"
        "    class Kept:\n"
        "        value = math.floor(2.5)\n"
        "    return {'x': [half(int(total)), Kept.value, json.dumps(Count('aa')), again(3)]}\n"
    )
    assert function_of(source, tmp_path)({"x": [1, 3]}) == {"x": [2.0, 2, '{"a": 2}', 0]}
    text = render([read(source)])
    assert not any(word in text for word in ("Dict", "pd.", "Unknown", "on_demand", "# how"))
    assert render([read(source.replace("    # how it is worked out\n", "\n"))]) == text


def test_indented_source_and_functions_of_one_name(tmp_path: Path) -> None:
    first = "    @on_demand_feature_view(name='a')\n    def f(inputs, more=3):\n        return {'v': more}\n"
    second = "def f(inputs):\n    '''text'''\n    return {'v': 'a\\nb'}\n"
    file = tmp_path / "features.py"
    file.write_text(render([read(first), read(second)]))
    made = load_makers(file)
    assert (made["view_0"]()({}), made["view_1"]()({})) == ({"v": 3}, {"v": "a\nb"})
    assert "import" not in file.read_text()


REFUSED = {
    "a global": ("def f(i):\n    return {'x': LIMIT}", "uses LIMIT, which its stored source does not define"),
    "a module of the file": ("def f(i):\n    return json.loads(i['x'])", "import json inside the function"),
    "a default from outside": ("def f(i, n=LIMIT):\n    return {}", "uses LIMIT"),
    "a global it sets": ("def f(i):\n    global seen\n    seen = 1\n    return {}", "uses seen"),
    "a name in a class": ("def f(i):\n    class A:\n        b = c\n    return {}", "uses c,"),
    "pandas": ("def f(i):\n    return pd.DataFrame(i)", "uses pd, which workers do not have"),
    "an import of pandas": ("def f(i):\n    import pandas as pd\n    return {}", "imports pandas"),
    "the system": ("def f(i):\n    import os\n    return {}", "imports os, which a worker does not run"),
    "a part of a package": ("def f(i):\n    from urllib import request\n    return {}", "imports urllib.request"),
    "a relative import": ("def f(i):\n    from . import x\n    return {}", "imports ., "),
    "a file": ("def f(i):\n    return open(i['x'])", "uses open"),
    "an end of the process": ("def f(i):\n    raise SystemExit", "uses SystemExit"),
    "code from text": ("def f(i):\n    return eval(i['x'])", "uses eval"),
    "another decorator": ("@functools.lru_cache\ndef f(i):\n    return {}", "decorator lru_cache"),
    "no argument": ("def f():\n    return {}", "does not take one argument"),
    "two arguments": ("def f(a, b):\n    return {}", "does not take one argument"),
    "a coroutine": ("async def f(i):\n    return {}", "no plain function"),
    "a lambda": ("    udf=lambda i: i)", "is no function"),
    "nothing": ("", "no plain function"),
    "more than a function": ("limit = 3\ndef f(i):\n    return {}", "no plain function"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_a_worker_cannot_run_is_refused_by_name(case: str) -> None:
    source, says = REFUSED[case]
    with pytest.raises(Refused) as refused:
        read(source)
    assert says in str(refused.value)
    assert str(refused.value).endswith("and")  # the caller's sentence goes on


def test_a_worker_imports_none_of_it_before_a_function_needs_it() -> None:
    code = "import sys, sunup.serve.worker; print(*[name for name in sys.modules if 'lookup.derive' in name])"
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not ran.stdout.split()


def test_what_may_be_imported_exists() -> None:
    for name in MODULES:
        __import__(name)


GIVEN: list[tuple[str, Any, Any]] = [
    ("INT64", 3.0, 3), ("INT32", True, 1), ("DOUBLE", 3, 3.0), ("FLOAT", 0.1, 0.10000000149011612), ("BOOL", 1, True),
    ("STRING", "a", "a"), ("BYTES", b"a", b"a"), ("INT64", None, None), ("DOUBLE", float("nan"), None),
    ("INT64", float("nan"), None), ("INT64_LIST", [1, 2.0], [1, 2]), ("STRING_LIST", ("a",), ["a"]),
]  # fmt: skip
WRONG: list[tuple[str, Any]] = [
    ("INT64", 2.5), ("INT64", "2"), ("INT32", 2**31), ("INT64", float("inf")), ("DOUBLE", "2"), ("STRING", 2),
    ("BYTES", "a"), ("BOOL", 2), ("BOOL", "yes"), ("FLOAT", 1e300), ("INT64_LIST", 3), ("INT64_LIST", [None]),
    ("STRING_LIST", "ab"), ("UNIX_TIMESTAMP", "now"),
]  # fmt: skip


def test_what_functions_give_is_of_the_declared_type_or_an_error() -> None:
    for kind, made, value in GIVEN:
        taken = taker(kind)(made)
        assert (taken, type(taken)) == (value, type(value)), (kind, made)
    for kind, made in WRONG:
        with pytest.raises((TypeError, OverflowError, ValueError)):
            taker(kind)(made)


def test_times_are_datetimes_in_between() -> None:
    assert taker("UNIX_TIMESTAMP")(giver("UNIX_TIMESTAMP")(1_700_000_000)) == 1_700_000_000
    assert taker("UNIX_TIMESTAMP_LIST")(giver("UNIX_TIMESTAMP_LIST")([0, -5])) == [0, -5]
    assert taker("UNIX_TIMESTAMP")(giver("UNIX_TIMESTAMP")(0).replace(tzinfo=None)) == 0
