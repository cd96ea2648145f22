"""The rules of the house, as tests. In: the files of this checkout. Out: a list of what breaks a rule."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "runtime", "edge_agent", "cloud_broker_worker")
# In two halves, so that this file does not name them either.
REGISTRY_HOSTS = [
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("deb.debian", ".org"),
    ("npmjs", ".org"),
    ("crates", ".io"),
    ("golang", ".org"),
]
MAX_REPOSITORY_BYTES = 60_000_000  # two small models are most of it; a clone should take seconds
# What tools leave behind, for a checkout without git, where nobody says what is ignored.
UNTRACKED_FOLDERS = {
    ".git",
    ".venv",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
}

# Who may import what. A package that is not named here may import it freely.
FORBIDDEN_IMPORTS = {
    "schemas": {
        "runtime",
        "edge_agent",
        "cloud_broker_worker",
        "deploy",
        "paho",
        "llama_cpp",
        "socket",
        "asyncio",
    },
    "runtime": {"edge_agent", "cloud_broker_worker", "deploy"},
    "edge_agent": {"cloud_broker_worker", "deploy"},
    "cloud_broker_worker": {"edge_agent", "deploy"},
}
IMPORTING_FUNCTIONS = {"importlib.import_module", "__import__"}
ONLY_DOOR = {
    "paho": Path("runtime/mqtt.py"),
    "llama_cpp": Path("runtime/llama.py"),
    "prometheus_client": Path("runtime/exposition.py"),
    "cryptography": Path("cloud_broker_worker/provision/authority.py"),
}


def _listed_by_git() -> list[Path] | None:
    """The files that git tracks or would track; None outside a repository or without git."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [Path(name) for name in listing.stdout.split("\0") if name] if listing.returncode == 0 else None


def _found_on_disk() -> list[Path]:
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path for path in paths if not UNTRACKED_FOLDERS & set(path.parts) and path.suffix != ".log"]


@pytest.fixture(scope="module")
def tracked_files() -> list[Path]:
    """Every file of the repository, relative to its root."""
    listed = _listed_by_git()
    return [path for path in (_found_on_disk() if listed is None else listed) if (ROOT / path).is_file()]


@pytest.fixture(scope="module")
def tracked_texts(tracked_files: list[Path]) -> dict[Path, str]:
    """The tracked files that are text, with their content."""
    texts = {}
    for path in tracked_files:
        content = (ROOT / path).read_bytes()
        if b"\0" not in content[:8192]:
            texts[path] = content.decode("utf-8")
    return texts


def _imported_modules(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """The full name of every module that a source imports, wherever in the file the import stands.

    `package` is the package that holds the file: relative imports start from it. Both halves of
    `from a import b` count, since `b` may be a module: `a` and `a.b` are yielded.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "importlib.import_module",
            "__import__",
        }:
            yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


@pytest.fixture(scope="module")
def imported_roots(tracked_texts: dict[Path, str]) -> dict[Path, set[str]]:
    """For each Python file the top-level names it imports: {"numpy", "schemas"}."""
    return {
        path: {name.split(".")[0] for name in _imported_modules(text, path.parts[:-1])}
        for path, text in tracked_texts.items()
        if path.suffix == ".py"
    }


def test_the_import_finder_sees_every_kind_of_import() -> None:
    source = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def late():\n    import h\nimportlib.import_module('i.j')\n"
    )
    found = set(_imported_modules(source, ("top", "sub")))
    assert {"a.b", "c", "c.d", "top.sub.e", "top.f", "top.f.g", "h", "i.j"} <= found


@pytest.mark.parametrize("package", sorted(FORBIDDEN_IMPORTS))
def test_a_package_imports_only_what_it_may(package: str, imported_roots: dict[Path, set[str]]) -> None:
    forbidden = FORBIDDEN_IMPORTS[package]
    found = {
        f"{path} imports {name}"
        for path, roots in imported_roots.items()
        if path.parts[0] == package
        for name in roots & forbidden
    }
    assert not found


@pytest.mark.parametrize("library", sorted(ONLY_DOOR))
def test_a_foreign_library_comes_in_through_one_file(
    library: str, imported_roots: dict[Path, set[str]]
) -> None:
    files = {path for path, roots in imported_roots.items() if library in roots and path.parts[0] in PACKAGES}
    assert files == {ONLY_DOOR[library]}


def test_each_package_says_that_it_is_typed_and_what_it_is_for(tracked_files: list[Path]) -> None:
    for package in PACKAGES:
        assert Path(package, "py.typed") in tracked_files
        assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))


def test_no_file_names_a_package_registry_or_a_path_of_one_machine(tracked_texts: dict[Path, str]) -> None:
    hosts = "|".join(re.escape("".join(halves)) for halves in REGISTRY_HOSTS)
    paths = r"(?<![\w./-])/(?:work|root|tmp|mnt)/[\w.-]+"
    pattern = re.compile(f"{hosts}|{paths}")
    found = {
        f"{path}:{number}: {match.group()}"
        for path, text in tracked_texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in pattern.finditer(line)
    }
    assert not found


def test_the_repository_stays_small(tracked_files: list[Path]) -> None:
    size_bytes = {path: (ROOT / path).stat().st_size for path in tracked_files}
    largest = sorted(size_bytes, key=lambda path: size_bytes[path])[-5:]
    assert sum(size_bytes.values()) < MAX_REPOSITORY_BYTES, f"largest: {largest}"


def test_each_make_target_has_a_line_of_help_and_each_script_it_runs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert phony == explained

    scripts = set(re.findall(r"@(\w[\w/]*/[\w.-]+)", makefile))
    assert scripts
    assert [name for name in sorted(scripts) if not (ROOT / name).is_file()] == []
    modules = {name for name in re.findall(r"-m ([\w.]+)", makefile) if (ROOT / name.split(".")[0]).is_dir()}
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_continuous_integration_runs_what_a_contributor_runs() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make check", "make test"]


def test_every_dependency_says_why_it_is_there_and_has_an_exact_version() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    assert list(pins) == sorted(pins)
    optional = [name for group in project["optional-dependencies"].values() for name in group]
    for requirement in [*project["dependencies"], *optional]:
        assert re.search(rf'^\s*"{re.escape(requirement)}",\s+# \S', text, re.MULTILINE), requirement
        assert re.match(r"[\w-]+", requirement)[0] in pins  # type: ignore[index]


def test_each_console_command_points_at_a_function_that_exists() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for command, target in scripts.items():
        module, function = target.split(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, command
