"""What both command lines do alike. In: argv. Out: an exit code, and one clear line for a fault."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from schemas.errors import ConfigurationError, HunchError


@dataclass(frozen=True)
class Command:
    """One subcommand: what it does, in a line, and the function that does it, given its arguments."""

    summary: str
    run: Callable[[list[str]], None]


def dispatch(prog: str, summary: str, commands: dict[str, Command], argv: list[str] | None = None) -> int:
    """Run the subcommand that argv names. Exit codes: 0 done, 1 failed, 2 wrong settings, 130 interrupted."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["--version"]:
        print(f"{prog} {version('hunch')}")
        return 0
    try:
        run_command(prog, summary, commands, words)
        sys.stdout.flush()
    except HunchError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    except BrokenPipeError:
        _discard_output()  # its reader has left
        return 1
    except OSError as error:  # a full disk, a file that must not be read
        _discard_output()
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run_command(prog: str, summary: str, commands: dict[str, Command], words: list[str]) -> None:
    """Run the command that the first word names, or print what there is; for commands below a command too.

    Raises ConfigurationError for a word that names none.
    """
    if not words or words[0] in {"-h", "--help"}:
        width = max(10, *(len(name) for name in commands))
        print(f"usage: {prog} COMMAND [--help]\n\n{summary}\n")
        print("\n".join(f"  {name:<{width}} {command.summary}" for name, command in commands.items()))
        return
    command = commands.get(words[0])
    if command is None:
        raise ConfigurationError(f"there is no command {words[0]!r}; choose from {', '.join(commands)}")
    command.run(words[1:])


def _discard_output() -> None:
    """Send what is still to be printed nowhere: Python would complain when it flushes the rest at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def set_up_logging(level: str) -> None:
    """Log to standard error, one line an event."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True
    )


def on_termination(stop: Callable[[], None]) -> None:
    """Call `stop` on SIGTERM and SIGINT, so that a service says farewell; a second one ends it at once."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
