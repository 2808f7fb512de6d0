"""The same export on every runner that runs on one machine, in processes of its own; and when one of them is killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import beam_made
import pytest
from beam_made import KINDS, inodes, published, same_as

import tfzip

pytest.importorskip("apache_beam", reason="Apache Beam is missing: pip install 'tfzip[beam]'")
pytestmark = pytest.mark.slow

LONGEST = 300  # seconds, of anything that is waited for
PLENTY = {**KINDS["flat"], "shard_records": 8}
"""Of 160 images twenty shards and more, so that a worker can be killed among them."""


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    return beam_made.pictures(digits, tmp_path_factory.mktemp("pictures") / "in")


@pytest.fixture(scope="module")
def local(folder, digits_files, tmp_path_factory):
    """The folders of local exports."""
    made = {}
    for kind, options in {**KINDS, "plenty": PLENTY}.items():
        made[kind] = tmp_path_factory.mktemp("local") / kind
        tfzip.export(str(folder), digits_files["keras"], str(made[kind]), **options)
    return made


@pytest.fixture(scope="module")
def dask_cluster():
    """A scheduler and two workers, each a process; the scheduler's address and the workers."""
    pytest.importorskip("distributed", reason="Dask is missing: pip install 'tfzip[peers]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
        stack.enter_context(ended_at_last(dask(*scheduler)))
        yield address, [stack.enter_context(ended_at_last(dask_worker(address))) for _ in range(2)]


def dask(*arguments):
    command = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def dask_worker(address):
    return dask("worker", address, "--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard")


@contextlib.contextmanager
def ended_at_last(process):
    try:
        yield process
    finally:
        process.kill()
        process.wait()


RUNNERS = {
    "in process": ["--runner=FnApiRunner"],
    "two processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    "portable": ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"],
    "dask": ["--runner=DaskRunner", "--dask_client_address={dask}"],
}


def begun(folder, model, out, options, runner):
    """An export on Beam in a process of its own, by the command line."""
    command = [sys.executable, "-m", "tfzip", "export", str(folder), "--model", model, "--out", str(out)]
    for name, value in options.items():
        command += [tfzip.options.flag(name), *([] if value is True else [str(value)])]
    return subprocess.Popen(
        [*command, "--engine", "beam", "--", *runner],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def exported(*arguments):
    """Such an export to its end; what it said."""
    process = begun(*arguments)
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    return said


@pytest.fixture
def runner_options(request):
    """The options of the runner of a name."""

    def options(name):
        address = request.getfixturevalue("dask_cluster")[0] if name == "dask" else ""
        return [option.format(dask=address) for option in RUNNERS[name]]

    return options


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_every_runner_writes_the_local_export(folder, digits_files, local, tmp_path, runner_options, runner, kind):
    exported(folder, digits_files["keras"], tmp_path / "out", KINDS[kind], runner_options(runner))
    assert same_as(tmp_path / "out", local[kind])
    with tfzip.open(tmp_path / "out") as export:
        name = {"two processes": "FnApiRunner", "in process": "FnApiRunner", "portable": "PortableRunner"}
        assert export.run["runner"] == name.get(runner, "DaskRunner")
        if runner != "dask":  # which counts nothing
            assert export.run["counters"]["shards"] == len(export.manifest["shards"])


def wait_for_shards(process, out, least):
    """Until so many shards are finished."""
    deadline = time.monotonic() + LONGEST
    while len(list((out / ".tfzip").glob("rows-*.npz"))) < least:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def descendants(pid):
    """The processes that a process has started, and those that these have."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, rest = int(stat.parent.name), stat.read_text().rpartition(") ")[2].split()
            if int(rest[1]) == pid:
                found += [number, *descendants(number)]
    return found


def beam_workers(pid):
    """Those of a process that are Beam's workers."""
    lines = {number: Path(f"/proc/{number}/cmdline").read_bytes() for number in descendants(pid)}
    return [number for number, line in lines.items() if b"sdk_worker_main" in line and not line.startswith(b"/bin/sh")]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes as Linux shows them")


@needs_proc
def test_a_killed_worker_process_ends_the_export_which_goes_on(folder, digits_files, local, tmp_path, runner_options):
    """FnApiRunner fails then; what was finished stays, and is not done again."""
    out, arguments = tmp_path / "out", (folder, digits_files["keras"], tmp_path / "out", PLENTY)
    process = begun(*arguments, runner_options("two processes"))
    wait_for_shards(process, out, 4)
    os.kill(beam_workers(process.pid)[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 1, said
    assert "goes on after what is finished" in said
    assert not (out / "index.zip").exists()
    kept = inodes(out / ".tfzip")
    assert len(kept) >= 4
    exported(*arguments, runner_options("two processes"))
    assert {number: published(out)[number] for number in kept} == kept
    assert same_as(out, local["plenty"])


def test_a_killed_worker_of_dask_is_made_up_for_by_another(folder, digits_files, local, tmp_path, dask_cluster):
    address, workers = dask_cluster
    out, runner = tmp_path / "out", ["--runner=DaskRunner", f"--dask_client_address={address}"]
    with ended_at_last(dask_worker(address)) as doomed:
        process = begun(folder, digits_files["keras"], out, PLENTY, runner)
        wait_for_shards(process, out, 4)
        doomed.kill()
        kept = inodes(out / ".tfzip")
        said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    assert all(worker.poll() is None for worker in workers)
    assert {number: published(out)[number] for number in kept} == kept
    assert same_as(out, local["plenty"])


@needs_proc
@pytest.mark.parametrize("runner", ["two processes", "dask"])
def test_all_killed_at_once_it_goes_on(folder, digits_files, local, tmp_path, runner_options, runner):
    """The process that was called, and what it started; workers of Dask then find nobody to tell, and go on."""
    out, arguments = tmp_path / "out", (folder, digits_files["keras"], tmp_path / "out", PLENTY)
    process = begun(*arguments, runner_options(runner))
    wait_for_shards(process, out, 3)
    for number in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.communicate()
    kept = inodes(out / ".tfzip")
    exported(*arguments, runner_options(runner))
    assert {number: published(out)[number] for number in kept} == kept
    assert same_as(out, local["plenty"])
