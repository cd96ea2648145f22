"""What this machine has for a process: memory, processors, a clock. In: the kernel's files. Out: numbers.

A container or a service may have less than the machine: its control group (version 2) says so.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

# adjtimex(2): what it returns while nothing keeps the clock, and more than a `struct timex` takes (208 bytes).
_TIME_ERROR = 5
_TIMEX_BYTES = 512


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """What a process may still take before something is killed or swapped; None where the kernel does not say."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    free = [] if found is None else [int(found[1]) * 1024]
    for group in _groups(root):
        limit = _read(group / "memory.max").strip()
        used = _read(group / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            # Cached files count as used, and make room when it is needed.
            cached = re.search(r"^inactive_file (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
            free.append(max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0)))
    return min(free, default=None)


def usable_processors(root: Path = Path("/")) -> int:
    """How many threads can run at once: the processors that this process may use, less where a quota bounds it."""
    counts = [len(os.sched_getaffinity(0))]
    for group in _groups(root):
        quota, _, period = _read(group / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            counts.append(max(1, math.ceil(int(quota) / int(period))))
    return min(counts)


def clock_is_kept() -> bool | None:
    """Whether the kernel knows of a service that sets its clock; None where it cannot be asked."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError):  # another C library, another system
        return None
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # all zero: changes nothing
    return None if state < 0 else state != _TIME_ERROR


def _groups(root: Path) -> Iterator[Path]:
    """The process's control group and those around it."""
    found = re.search(r"^0::/(.*)$", _read(root / "proc/self/cgroup"), re.MULTILINE)
    if found is None:
        return
    top = root / "sys/fs/cgroup"
    group = top / found[1]
    yield from (each for each in (group, *group.parents) if each.is_relative_to(top))


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
