"""A signal ends the command line's process at once; a process that is not ours gets its KeyboardInterrupt."""

import signal
import subprocess
import sys

import pytest

from tfzip import interrupt


def ran(code, left=""):
    """Run code in a process of its own, in which a signal ends it, and leaves something."""
    begun = "import os, signal, time, multiprocessing\nfrom tfzip import interrupt\n"
    begun += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    begun += f"interrupt.end_process('stopped', {left!r})\n"
    done = subprocess.run([sys.executable, "-c", begun + code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_the_process_though_it_holds_on(number, code):
    ended = f"""
try:
    signal.raise_signal(signal.{number})
    while True:
        time.sleep(1)
finally:
    print("unwound")
"""
    assert ran(ended) == (code, "", "stopped\n")


def test_what_is_to_be_done_at_last_is_done_but_not_waited_for_at_a_second_signal():
    ended = """
def last():
    print("last", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    print("waited for")
with interrupt.at_last(lambda: print("over before")):
    pass
with interrupt.at_last(last):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""
    assert ran(ended) == (130, "last\n", "stopped\n")


def test_what_is_left_is_told_and_of_what_is_at_work_that():
    stop = "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    assert ran(f"with interrupt.leaving('a half'):\n    pass\n{stop}", "all") == (130, "", "stopped; all\n")
    assert ran(f"with interrupt.leaving('a half'):\n    {stop}", "all") == (130, "", "stopped; a half\n")


def test_a_signal_to_a_forked_child_is_the_childs():
    ended = """
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
child.terminate()
child.join()
time.sleep(0.2)
print(child.exitcode)
"""
    assert ran(ended) == (0, "-15\n", "")


@pytest.fixture
def default():
    """SIGINT as Python has it: a function that sends it here."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, old)


def test_put_off_an_interrupt_comes_at_the_end(default):
    done = []

    def work():
        with interrupt.put_off():
            default()
            done.append("went on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["went on"]
    with pytest.raises(KeyboardInterrupt):
        default()


def test_put_off_a_second_interrupt_comes_at_once(default):
    done = []

    def work():
        with interrupt.put_off():
            default()
            default()
            done.append("went on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == []


def test_what_others_make_of_an_interrupt_stays(default):
    came = []
    signal.signal(signal.SIGINT, lambda *_: came.append(1))
    with interrupt.put_off():
        default()
        assert came
