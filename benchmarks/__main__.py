"""Runs benchmarks by name. In: names. Out: tables. Every figure is a ratio within one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import board_arithmetic
from benchmarks.paper.run import main as run_paper

BENCHMARKS: dict[str, tuple[str, Callable[[], None]]] = {
    "board-arithmetic": ("what a board computes beside the model, in softmax passes", board_arithmetic.run),
}


def main() -> int:
    """Entry point of `python -m benchmarks`."""
    if sys.argv[1:2] == ["paper"]:  # takes half an hour and settings of its own
        return run_paper(sys.argv[2:])
    listing = "\n".join(f"  {name:<18} {summary}" for name, (summary, _) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures what the documentation quotes.",
        epilog=f"benchmarks:\n{listing}\n\n  paper --help       the papers' methods and ours, on a real broker",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help="all by default")
    for name in parser.parse_args().names or BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name][0]}")
        BENCHMARKS[name][1]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
