"""The function of an on-demand feature view, from the source Feast stores: checked, and written to features.py.

Feast keeps the function pickled as well; nothing here or in a worker unpickles it. What is written is the function by
itself: without decorators and annotations (which may need names a worker does not have), comments and formatting, so
that equal code gives equal bytes. None of the checks makes the code safe: it is its team's, as handler.py is. They
find what would fail in a worker, when it is deployed.
"""

import ast
import builtins
import symtable
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

# Modules a function may import: numpy, and what of the standard library works out values and touches nothing else.
MODULES: Final = frozenset(
    {
        "array", "base64", "binascii", "bisect", "calendar", "cmath", "collections", "colorsys", "copy",
        "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq",
        "hmac", "ipaddress", "itertools", "json", "math", "numbers", "numpy", "operator", "re", "statistics",
        "string", "struct", "textwrap", "typing", "unicodedata", "urllib.parse", "zlib",
    }
)  # fmt: skip
# Names a function may use without importing them: what Feast itself gives it, and math.
GIVEN: Final = {"math": "import math", "np": "import numpy as np", "numpy": "import numpy"}
_FORBIDDEN: Final = frozenset(
    {
        "__import__", "breakpoint", "compile", "eval", "exec", "exit", "globals", "help", "input", "locals",
        "open", "print", "quit",
        "BaseException", "KeyboardInterrupt", "SystemExit",  # would end the worker, not the call
    }
)  # fmt: skip
_PANDAS: Final = ("pd", "pandas")
_DECORATORS: Final = ("on_demand_feature_view", "transformation", "python_transformation")
_HEAD: Final = '"""On-demand feature views, each made by a function, from the source that Feast stores of them."""\n'


class Refused(ValueError):
    """Why a worker cannot run a function; the text follows the view's name."""


class Code(NamedTuple):
    """A function that a worker can run: its imports and itself, and which of GIVEN it uses."""

    body: tuple[ast.stmt, ...]
    name: str
    given: frozenset[str]


def read(source: str) -> Code:
    """The function in `source`, as Feast stores it (`udf_string`). Raises Refused."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError as error:
        raise Refused("is stored as source that is no function (a lambda?). Write it as a def, and") from error
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    rest = [node for node in tree.body if node not in imports and not _is_text(node)]
    if len(rest) != 1 or not isinstance(rest[0], ast.FunctionDef):
        raise Refused("is stored as source that is no plain function. Write it as one def, and")
    function = rest[0]
    _check_shape(function)
    _check_imports(tree)
    bare = _Bare()
    tree.body = [*imports, bare.visit(function)]
    ast.fix_missing_locations(tree)
    return Code((*imports, function), function.name, _given(ast.unparse(tree)))


def render(codes: Sequence[Code]) -> str:
    """The text of features.py: `maker(i)` in it returns the function of `codes[i]`."""
    parts = [_HEAD, *(f"{GIVEN[name]}\n" for name in sorted(frozenset[str]().union(*(code.given for code in codes))))]
    for place, code in enumerate(codes):
        tree = ast.parse(f"def {maker(place)}():\n    return {code.name}\n")
        made = tree.body[0]
        assert isinstance(made, ast.FunctionDef)
        made.body = [*code.body, *made.body]
        parts.append(f"\n\n{ast.unparse(ast.fix_missing_locations(tree))}\n")
    return "".join(parts)


def maker(place: int) -> str:
    """What in features.py makes the function of on-demand view `place` of the plan."""
    return f"view_{place}"


class _Bare(ast.NodeTransformer):
    """Takes decorators of the function and all annotations away."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        if any(_name(each) in _DECORATORS for each in node.decorator_list):
            node.decorator_list = []
        self.generic_visit(node)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        self.generic_visit(node)
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=node.value)


def _check_shape(function: ast.FunctionDef) -> None:
    others = [_name(each) for each in function.decorator_list if _name(each) not in _DECORATORS]
    if others:
        raise Refused(f"has the decorator {others[0]}, which Feast drops when it serves. Call it in the function, and")
    arguments = function.args
    count = len(arguments.posonlyargs) + len(arguments.args)
    if not (count - len(arguments.defaults) <= 1 <= count) or None in arguments.kw_defaults:
        raise Refused("has a function that does not take one argument, the inputs. Correct it, and")


def _check_imports(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = whole if node.module == "urllib" else [f"{'.' * node.level}{node.module or ''}"]
        for name in names:
            if name not in MODULES and name.partition(".")[0] not in MODULES:
                raise Refused(
                    f"imports {name}, which a worker does not run. It may import {', '.join(sorted(MODULES))}. Do "
                    "without it, and"
                )


def _given(text: str) -> frozenset[str]:
    """Which of GIVEN a module of this text uses. Raises Refused for any other name it does not define."""
    used = dict.fromkeys(_free(symtable.symtable(text, "features.py", "exec")))
    for name in used:
        if name in _FORBIDDEN:
            raise Refused(f"uses {name}, which a worker does not run for it. Do without it, and")
        if name in _PANDAS:
            raise Refused(f"uses {name}, which workers do not have. Write it with numpy or plain Python, and")
        if name not in GIVEN and not hasattr(builtins, name):
            how = f"import {name} inside" if name in MODULES else "define it inside"
            raise Refused(
                f"uses {name}, which its stored source does not define: a name of the module or the function around "
                f"it. Feast stores the function alone; {how} the function, and"
            )
    return frozenset(used) & GIVEN.keys()


def _free(top: symtable.SymbolTable) -> Iterator[str]:
    """Names that are looked up outside this module, builtins among them, in order of appearance."""
    defined = {each.get_name() for each in top.get_symbols() if each.is_assigned() or each.is_imported()}
    waiting = [top]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        for each in table.get_symbols():
            outside = each.is_global() or (table is top and each.is_referenced())
            if outside and each.get_name() not in defined:
                yield each.get_name()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _name(decorator: ast.expr) -> str:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).rpartition(".")[2]
