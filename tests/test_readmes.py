"""What the pages for readers say is true: their Python runs and prints what stands below it, their links lead
somewhere, their commands have options that exist, and their lines fit. And a clone holds nothing else."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (".", "minicnn", "examples", "benchmarks")
    for page in (ROOT / folder).glob("**/*.md" if folder != "." else "*.md")
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
COMMAND = re.compile(
    r"^    python (?:-m )?((?:examples|benchmarks|tests)\S*(?: cpu| gpu| parallel| scale)?)(.*)$", re.MULTILINE
)
COMMANDS = sorted(
    {
        (program, option)
        for page in PAGES
        for program, rest in COMMAND.findall((ROOT / page).read_text(encoding="utf-8"))
        for option in ["--help", *re.findall(r"--[a-z][a-z0-9-]*", rest.partition("#")[0])]
    }
)


TOP = set(
    """.ci .gitignore CHANGELOG.md CONTRIBUTING.md LICENSE Makefile README.md benchmarks examples findings minicnn
    pyproject.toml setup.cfg tests""".split()
)


def test_what_a_clone_holds():
    """No file that was left lying there, and none that makes the clone slow."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no clone, or git is not here to list its files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # as where the clone belongs to another user
        pytest.skip(f"git does not list the files: {listed.stderr.strip()}")
    files = [Path(name) for name in listed.stdout.split("\0")[:-1]]
    assert {path.parts[0] for path in files} == TOP
    assert [path for path in files if (ROOT / path).is_file() and (ROOT / path).stat().st_size > 200_000] == []


def named(items):
    return pytest.mark.parametrize(items, PAGES, ids=map(str, PAGES))


@named("page")
def test_python_runs_and_prints_what_stands_below_it(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names, printed = {"__name__": "page"}, None
    for kind, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(text, str(page), "exec"), names)
            printed = output.getvalue()
        elif kind == "text":
            assert printed == text, "after a block of Python stands what it prints"


@named("page")
def test_links_lead_somewhere(page):
    for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page.parent / link).exists(), link


@named("page")
def test_lines_have_at_most_100_columns(page):
    if page.parts[:2] != ("benchmarks", "results"):  # tables that a program writes
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if len(line) > 100] == []


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


@pytest.fixture(scope="module")
def help_of():
    texts = {}

    def text(program):
        if program not in texts:
            what = [program] if program.endswith(".py") else ["-m", *program.split()]
            done = subprocess.run([sys.executable, *what, "--help"], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            texts[program] = done.stdout
        return texts[program]

    return text


@pytest.mark.parametrize("program, option", COMMANDS, ids=map(" ".join, COMMANDS))
def test_commands_have_options_that_exist(program, option, help_of):
    assert re.search(rf"{option}\b", help_of(program))
