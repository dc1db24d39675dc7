"""The repository is the package: what stands in it, and what may not."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", ".path", ".dgdm", ".hypothesis", "build", "dist"}
LEFT_BEHIND = ("_cache", "__pycache__", ".egg-info")
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".xml", ".properties", ".sh", ""}


def files() -> Iterator[Path]:
    """Every file of the repository, without what tools leave behind."""
    for folder, names, found in os.walk(ROOT):
        names[:] = [
            n for n in names if n not in NOT_OURS and not n.endswith(("_cache", "__pycache__", ".egg-info"))
        ]
        yield from (Path(folder, name) for name in found if name not in NOT_OURS)


def code() -> Iterator[Path]:
    """Python files, and scripts without a suffix."""
    for path in files():
        if path.suffix == ".py" or (not path.suffix and path.read_bytes()[:2] == b"#!"):
            yield path


def text() -> Iterator[tuple[Path, int, str]]:
    """Every line of every text file."""
    for path in files():
        if path.suffix in TEXT and path.stat().st_size < 1_000_000:
            for number, line in enumerate(path.read_text("utf-8", errors="ignore").splitlines(), 1):
                yield path.relative_to(ROOT), number, line


def test_packages_are_the_folders_with_an_init() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in files() if path.name == "__init__.py"}
    found = {".".join(("dgdm", *folder.parts)) for folder in folders if folder.parts[:1] != ("tests",)}
    assert found == set(setuptools["packages"])


def test_every_package_data_pattern_finds_a_file() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, patterns in setuptools["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: nothing matches {pattern}"


def test_no_file_is_longer_than_400_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in code() if (n := len(p.read_text().splitlines())) > 400}
    assert not long, "which two rooms are in there?"


def lines_with(pattern: str) -> list[str]:
    wanted = re.compile(pattern)
    return [f"{path}:{n}: {line.strip()[:100]}" for path, n, line in text() if wanted.search(line)]


def test_the_image_is_given_every_room() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {package.split(".")[1] for package in packages if "." in package}
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert rooms <= given


# In the patterns below, brackets keep them from finding themselves.
def test_no_path_of_a_machine() -> None:
    assert not lines_with(r"(^|[\s\"'`=(:])/(wor[k]|far[m]|roo[t]|User[s]|hom[e])/")


def test_no_download_address() -> None:
    assert not lines_with(r"""index[-_]ur[l]\s*[:=]|"resolve[d]":\s*"http|registr[y]\s*=\s*["']?http""")


def test_nothing_unfinished_is_committed() -> None:
    assert not lines_with(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b|NotImplemente[d]Error|pragma: no cove[r]")


def test_test_modules_have_unique_names() -> None:
    seen: dict[str, Path] = {}
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name not in {"conftest.py", "__init__.py"}:
            assert path.name not in seen, f"{path} and {seen[path.name]}"
            seen[path.name] = path
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_every_dependency_is_pinned_in_constraints() -> None:
    def name(requirement: str) -> str:
        return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")

    described = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = described["optional-dependencies"].values()
    wanted = {name(r) for r in [*described["dependencies"], *(r for extra in extras for r in extra)]}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert wanted <= {name(line) for line in lines}
