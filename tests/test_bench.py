"""That `scripts/bench` can measure what it lists; how fast anything is, no test asserts."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS), prepend=os.pathsep)


def test_every_side_is_a_function_of_a_peer_whose_file_names_a_page():
    for workload in importlib.import_module("benchmark.workloads").WORKLOADS.values():
        assert any(side.own for side in workload.sides)
        for side in workload.sides:
            peer = importlib.import_module(f"benchmark.peers.{side.peer}")
            assert callable(getattr(peer, side.function))
            assert peer.PACKAGES
            assert side.peer == "tfzip" or "https://" in peer.__doc__


def test_a_ratio_is_of_rounds_and_what_fails_leaves_with_its_reason():
    measure = importlib.import_module("benchmark.measure")
    table = importlib.import_module("benchmark.table")
    results = {
        "ours": {"own": "tfzip", "seconds": [1.0, 2.0, 4.0], "bytes": 10**6},
        "theirs": {"own": "", "seconds": [3.0, 4.0, 4.0], "bytes": 0},
        "gone": {"own": "", "seconds": [], "failed": "NoError: it is gone"},
    }
    sides = measure._compared(results, 100)
    assert sides["ours"]["rate"] == 50
    assert sides["theirs"]["ratios"] == {"tfzip": {"median": 2, "least": 1, "most": 3, "rounds": [3, 2, 1]}}
    shown = table.show("title", {"sides": sides, "images": 100, "image_bytes": 10**6, "unit": "images/s"})
    assert "2.00 (1.00-3.00)" in shown
    assert "not measured: NoError: it is gone" in shown


def test_what_was_killed_is_told_as_that_and_not_by_what_it_warned_of():
    measure = importlib.import_module("benchmark.measure")
    code = "import os, sys; print('SomeError: only a warning', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(measure.FailedError, match=r"^SIGKILL ended it$"):
        measure.process(sys.executable, "-c", code)


@pytest.mark.slow
def test_a_short_run_measures_tfzip_and_a_peer(tmp_path):
    told = tmp_path / "told.json"
    options = ["--only", "write", "--peers", "tfrecord", "--images", "1", "--rounds", "1", "--json", str(told)]
    subprocess.run([sys.executable, "-m", "benchmark", *options], check=True, stdout=subprocess.DEVNULL)
    sides = json.loads(told.read_text())["write"]["sides"]
    assert not [side["failed"] for side in sides.values() if "failed" in side]
    assert set(sides["protobuf, TFRecordWriter"]["ratios"]) == {"paths", "bytes", "folder", "uncompr."}
