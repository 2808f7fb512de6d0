"""Colours: on a terminal that wants them, and nowhere else; the text is the same. In real pseudo-terminals."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import tfzip

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
import fcntl  # noqa: E402 - where there is a pty
import struct  # noqa: E402
import termios  # noqa: E402

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
NAMES = ["plain", "[red]marked[/red]", ":smile:", "\x1b[31mescaped", "猫", "long " * 30]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """An export with odd class names and filenames, one that failed, and one whose prediction is not a number."""
    folder = tmp_path_factory.mktemp("colour")
    rng = np.random.default_rng(1)
    scores = np.eye(len(NAMES), dtype=np.float32)[rng.integers(0, len(NAMES), 40)]
    scores[:6] = np.eye(len(NAMES))
    scores[7] = np.nan
    images = [*rng.integers(0, 256, (39, 2, 2, 3), np.uint8), b"no image"]
    names = [f"{row}.png" for row in range(38)] + ["[bold]x.png", "\x1b[2J.png"]
    names[7] = ":boom:.png"
    tfzip.write(zip(scores, names, images, strict=True), str(folder / "out"), labels=NAMES, quiet=True)
    return str(folder / "out")


def plain(*arguments, **environment):
    """What a program gets: standard output, and error."""
    done = subprocess.run(
        [sys.executable, "-m", "tfzip", *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )
    return done.stdout, done.stderr


def on_terminal(*arguments, columns=200, **environment):
    """What a terminal of so many columns gets of the command, whatever the streams."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    wanted = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    wanted |= {"TERM": "xterm-256color", **environment}
    command = [sys.executable, "-m", "tfzip", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=wanted):
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def _read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def without_bars(text):
    return re.sub(r"#+", "#", text)


def test_a_terminal_shows_the_same_text_in_colours(out):
    wanted = plain("inspect", out)[0]
    shown = on_terminal("inspect", out, columns=250)
    assert "\x1b" not in wanted
    assert without_bars(ESCAPES.sub("", shown)) == without_bars(wanted)
    for styled in ("classes", "shards", "failures"):
        assert re.search(rf"\x1b\[[0-9;]+m{styled}\x1b", shown), styled
    assert re.search(r"\x1b\[[0-9;]+m#+\x1b", shown)
    assert re.search(r"\x1b\[[0-9;]+m1 prediction not a number[^\x1b\n]*\x1b", shown)
    for name in ("[red]marked[/red]", ":smile:", "\\x1b[31mescaped", "\\x1b[2J.png", ":boom:.png"):
        assert name in ESCAPES.sub("", shown)
        assert name in wanted


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_that_wants_none_gets_none(environment, out):
    shown = on_terminal("inspect", out, columns=250, **environment)
    assert shown.isprintable() or set(filter(lambda c: not c.isprintable(), shown)) == {"\n"}
    assert without_bars(shown) == without_bars(plain("inspect", out)[0])
    assert "\x1b" not in on_terminal("inspect", "nowhere", **environment)


def test_an_empty_no_color_is_none(out):
    assert "\x1b" in on_terminal("inspect", out, NO_COLOR="")


def test_what_is_piped_is_plain_whatever_is_asked_for(out):
    wanted = plain("inspect", out)[0]
    assert plain("inspect", out, FORCE_COLOR="1", COLUMNS="30", TERM="xterm-256color")[0] == wanted
    assert "long " * 30 in wanted


@pytest.mark.parametrize("columns", [80, 40])
def test_charts_fit_the_terminal(columns, out):
    text = ESCAPES.sub("", on_terminal("inspect", out, columns=columns))
    charts = re.findall(r"^(?:classes|confidence)\n((?:  .*\n)+)", text, re.MULTILINE)
    lines = "".join(charts).splitlines()
    assert max(len(line) + ("猫" in line) for line in lines) == columns
    assert any("long lo" in line and "..." in line for line in lines)


def test_an_error_is_marked_on_a_terminal_only():
    shown, told = on_terminal("inspect", "nowhere"), plain("inspect", "nowhere")[1]
    assert told == "tfzip inspect: nowhere: no such folder\n"
    assert re.fullmatch(r"(\x1b\[[0-9;]+m)tfzip inspect:\x1b\[0m nowhere: no such folder\n", shown)
    wrong, said = on_terminal("exprot"), plain("exprot")[1]
    assert ESCAPES.sub("", wrong) == said
    assert wrong.startswith("\x1b")


@pytest.mark.slow
def test_the_other_commands_show_the_same_text(out, tmp_path):
    for arguments in (
        ["verify", out],
        ["get", out, "1.png"],
        ["diff", out, out],
        ["select", out, "--out", str(tmp_path / "new"), "--dry-run"],
        ["inspect", out, "--json"],
    ):
        shown = on_terminal(*arguments, columns=250)
        assert ESCAPES.sub("", shown) == plain(*arguments)[0], arguments
