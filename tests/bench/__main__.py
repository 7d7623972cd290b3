"""`python -m tests.bench NAME [options]` runs one bench; without a name, lists them."""

import runpy
import sys
from pathlib import Path

PREFIX = "bench_"


def names() -> list[str]:
    """The benches there are."""
    return sorted(p.stem.removeprefix(PREFIX).replace("_", "-") for p in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in names():
        sys.exit(f"There is no bench {name!r}. Benches: {', '.join(names())}. Run one with make bench BENCH=NAME")
    del sys.argv[0]
    runpy.run_module(f"tests.bench.{PREFIX}{name.replace('-', '_')}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
