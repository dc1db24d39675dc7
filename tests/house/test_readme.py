"""Every command that the README and the pages beside it name exists, with the flags they give it."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_of(page: Path) -> list[str]:
    """Lines of the page's code blocks and its code spans."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return [line.strip() for part in [*blocks, *indented, *spans] for line in part.splitlines()]


def commands(program: str) -> set[str]:
    """What the pages tell people to type, from the program's name on, comments and pipes cut off."""
    found = set()
    for page in PAGES:
        for line in code_of(page):
            for part in re.split(r"&&|\||;|\s#\s", line):
                words = part.replace("$ ", "").split()
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # NAME=value before the program
                    words = words[1:]
                if words and words[0].split("/")[-1] == program:
                    found.add(" ".join([program, *words[1:]]))
    return found


@functools.cache
def help_of(command: str) -> str | None:
    """The help page of a dgdm command; None when there is no such command."""
    done = subprocess.run(
        [sys.executable, "-m", "dgdm", *command.split(), "--help"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT / ".path",
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )
    return done.stdout if done.returncode == 0 else None


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {c.split()[1] for c in commands("make") if len(c.split()) > 1 and "=" not in c.split()[1]}
    assert asked
    assert asked <= targets


def test_help_comes_first_and_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):", text, re.MULTILINE)
    assert targets[0] == "help"
    make = ["make", "--no-print-directory"]  # which a make above this one would have it print
    printed = subprocess.run(make, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert [line.split()[1] for line in printed.splitlines()] == targets


@pytest.mark.parametrize("command", sorted(commands("dgdm")))
def test_every_dgdm_command_exists(command: str) -> None:
    words = command.split()[1:]
    named = [word for word in words[:2] if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)]
    # `topics create` is a command below a command, as others of these three; elsewhere a second word is an argument
    path = " ".join(named[: 2 if named[:1] in (["topics"], ["model"], ["tpu"]) else 1])
    page = help_of(path)
    assert page is not None, f"there is no `dgdm {path}`"
    for flag in re.findall(r"--[a-z][a-z-]*", command):
        assert re.search(rf"{flag}(?![a-z-])", page), f"`dgdm {path}` has no {flag}"


def test_the_examples_in_python_are_true() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        assert "assert" in block
        exec(compile(block, "README.md", "exec"), {})


def test_every_choice_of_tests_chooses_some() -> None:
    names = [
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    chosen = [word for page in PAGES for word in re.findall(r'ARGS="-k (\w+)', page.read_text())]
    assert {"killed", "grow"} <= set(chosen)
    for word in chosen:
        assert any(word in name for name in names), f"-k {word}"


def test_the_diagram_of_states_is_the_table() -> None:
    from dgdm.state.lifecycle import SUCCESSORS

    text = (ROOT / "docs" / "discussions.md").read_text()
    drawn = set(re.findall(r"^    ([A-Z]+) --> ([A-Z]+)", text, re.MULTILINE))
    assert drawn == {(old.name, new.name) for old, successors in SUCCESSORS.items() for new in successors}


def anchors_of(page: Path) -> set[str]:
    """What a link may name in a page: its headings, as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            if "://" not in target:
                there = page.parent / target if target else page
                assert there.exists(), f"{page.relative_to(ROOT)} links to {target}"
                assert not anchor or anchor in anchors_of(there), (
                    f"{page.relative_to(ROOT)}: {target}#{anchor}"
                )


def test_every_variable_the_pages_name_is_a_setting() -> None:
    from dgdm.settings import Settings

    others = {
        "CONFIG",
        "SEED",
        "REQUIRE_INTEGRATION",
        "OFFLINE",
        "OFFLINE_CACHE",
    }  # the file, the tests, the kit
    known = {name.upper() for name in Settings.model_fields} | others
    for page in [*PAGES, ROOT / "docker-compose.yml", ROOT / "Dockerfile", ROOT / "Makefile"]:
        named = set(re.findall(r"\bDGDM_([A-Z_]+[A-Z])\b", page.read_text()))
        assert named <= known, page.name
