"""Runs benchmarks by name. In: names. Out: tables. Every figure is a ratio within one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks import board_arithmetic, controller, frames, telemetry
from benchmarks.paper import run as paper

BENCHMARKS: dict[str, tuple[str, Callable[[], None]]] = {
    "board-arithmetic": ("what a board computes beside the model, in softmax passes", board_arithmetic.run),
    "telemetry": ("what telemetry costs an agent, of its bytes and its time", telemetry.run),
}
# These need options of their own, and are not run by default.
WITH_OPTIONS: dict[str, tuple[str, Callable[[list[str]], int]]] = {
    "frames": ("bytes on the wire by encoding, from a calibration's samples", frames.run),
    "paper": ("the papers' methods and ours on a real broker, half an hour; --corpus FILE", paper.main),
    "controller": ("does the controller hold its risk, with the demo's pair; --corpus DIR", controller.run),
}


def main() -> int:
    """Entry point of `python -m benchmarks`."""
    if sys.argv[1:2] and sys.argv[1] in WITH_OPTIONS:
        return WITH_OPTIONS[sys.argv[1]][1](sys.argv[2:])
    listing = "\n".join(
        f"  {name:<18} {summary}" for name, (summary, _) in (BENCHMARKS | WITH_OPTIONS).items()
    )
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
