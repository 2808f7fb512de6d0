"""What helps people type: an example in every --help, which works, and completion in their shell."""

import argparse
import re
import shlex
import shutil
import subprocess

import pytest

from tfzip import cli


def commands():
    """The parser of every command, by its name."""
    (found,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return found.choices


def example(name):
    """What the --help of a command says to type, as a shell takes it apart."""
    (line,) = re.findall(r"^example: python -m tfzip (.*)$", commands()[name].format_help(), re.MULTILINE)
    found = shlex.split(line)
    assert found[0] == name
    return found


def works(name, capsys):
    assert cli.main(example(name)) == 0, f"the example of {name}: {capsys.readouterr().err}"


@pytest.mark.usefixtures("folder")
def test_the_example_of_every_command_works_in_a_narrow_terminal_too(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    works("export", capsys)
    assert cli.main(["export", "labelled/", "--model", "better.keras", "--out", "again/"]) == 0
    for name in commands():
        if name not in ("export", "demo"):
            works(name, capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_example_of_the_demo_works(capsys):
    works("demo", capsys)


# Completion.


@pytest.fixture(scope="module")
def completions(tmp_path_factory):
    """The files that shtab makes for bash and zsh, in a folder of their own, as the README says."""
    shtab = pytest.importorskip("shtab")
    folder = tmp_path_factory.mktemp("completions")
    for shell, name in (("bash", "tfzip"), ("zsh", "_tfzip")):
        (folder / name).write_text(shtab.complete(cli.parser(), shell))
    return folder


TYPED = {
    "tfzip in": ["inspect"],
    "tfzip e": ["export", "extract"],
    "tfzip export --sca": ["--scale"],
    "tfzip select labelled --min": ["--min-confidence", "--min-margin"],
    "tfzip inspect lab": ["labelled"],
    "tfzip export photos --model cl": ["classifier.keras"],
    "tfzip get labelled cats/1.jpg --image ca": ["cat.jpg"],
    "tfzip diff labelled ag": ["again"],
}
"""What is typed, and what the tab key offers for the last word."""


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with a few files to complete to, where the reader is."""
    for name in ("labelled", "again"):
        (tmp_path / name).mkdir()
    for name in ("classifier.keras", "cat.jpg"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("there")
@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize("typed", TYPED)
def test_bash_completes(typed, completions):
    words = typed.split()
    code = f"""
source {shlex.quote(str(completions / "tfzip"))}
[[ $(complete -p tfzip) =~ -F\\ ([^ ]+) ]]
COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
"${{BASH_REMATCH[1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert (sorted({line.strip() for line in done.stdout.splitlines()}), done.stderr) == (TYPED[typed], "")
