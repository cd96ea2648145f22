"""What a process may use of its machine, from made-up kernel files and from the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.machine import available_memory_bytes, clock_is_kept, usable_processors


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 4 GB free, and a process in the group /system.slice/hunch.service."""
    write(tmp_path / "proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable:    4000000 kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/system.slice/hunch.service\n")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def group(root: Path, name: str = "") -> Path:
    return root / "sys/fs/cgroup" / name


def test_without_a_limit_all_that_is_available_counts(root):
    write(group(root, "system.slice") / "memory.max", "max\n")
    assert available_memory_bytes(root) == 4_000_000 * 1024


def test_the_tightest_limit_around_the_process_counts_and_cached_files_make_room(root):
    for name, limit in (("system.slice", 3_000_000), ("system.slice/hunch.service", 2_000_000)):
        write(group(root, name) / "memory.max", f"{limit}\n")
        write(group(root, name) / "memory.current", "900000\n")
        write(group(root, name) / "memory.stat", "anon 400000\ninactive_file 500000\n")
    assert available_memory_bytes(root) == 2_000_000 - 900_000 + 500_000


def test_a_container_sees_its_limit_at_the_root_of_its_groups(root):
    write(root / "proc/self/cgroup", "0::/\n")
    write(group(root) / "memory.max", "1000\n")
    write(group(root) / "memory.current", "2000\n")
    assert available_memory_bytes(root) == 0


def test_a_kernel_that_says_nothing_leaves_it_open(tmp_path):
    assert available_memory_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("cpu_max", "count"), [("100000 100000", 1), ("50000 100000", 1), ("110000 100000", 2)]
)
def test_a_quota_bounds_the_threads_that_can_run(root, monkeypatch, cpu_max, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    assert usable_processors(root) == 8
    write(group(root, "system.slice/hunch.service") / "cpu.max", cpu_max)
    assert usable_processors(root) == count


def test_the_real_kernel_answers():
    assert (available_memory_bytes() or 0) > 0
    assert 1 <= usable_processors() <= (os.cpu_count() or 1)
    assert clock_is_kept() in {True, False}
