"""Exports in processes of their own, which tests stop at any moment."""

import multiprocessing
import os
import resource
import signal
import time

METHOD = multiprocessing.get_context("forkserver")
METHOD.set_forkserver_preload(["tensorflow", "keras", "tfzip.pipeline", "sources_made"])


def exported(source, model, out, options, largest_file, dies_at, in_library):
    """In the child: export as the command line does, and end with its exit code; what it says is in `said`."""
    import tfzip
    from tfzip import interrupt

    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    if dies_at is not None:
        die_at(dies_at)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored where tests run
    if not in_library:
        interrupt.end_process("interrupted")
    code, said = 0, ""
    open(f"{out}.begun", "w").close()
    try:
        opened = source() if callable(source) else source
        if model is None:
            tfzip.write(opened, out, quiet=True, **options)
        else:
            tfzip.export(opened, model, out, quiet=True, **options)
    except tfzip.TfzipError as error:
        code, said = error.exit_code, f"{type(error).__name__}: {error}"
    except KeyboardInterrupt as error:
        code, said = 128 + signal.SIGINT, str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    with open(f"{out}.said", "w") as file:
        file.write(said)
    with open(f"{out}.peak", "w") as file:
        file.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    os._exit(code)


def die_at(operation):
    """End this process at the so manieth change that it makes to files: before it, as a loss of power may."""
    from tfzip import storage

    left = [operation]

    def counted(function):
        def call(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in ("open", "rename", "makedirs", "sync", "sync_folder", "remove", "remove_empty"):
        setattr(storage, name, counted(getattr(storage, name)))


def begun(source, model, out, options, largest_file=None, dies_at=None, in_library=False):
    """Start an export in a process of its own."""
    out.parent.joinpath(f"{out.name}.begun").unlink(missing_ok=True)
    process = METHOD.Process(
        target=exported, args=(source, model, str(out), options, largest_file, dies_at, in_library)
    )
    process.start()
    return process


def ended(*arguments, **named):
    """Export in a process of its own: its exit code, and what it said; None if it was killed."""
    process = begun(*arguments, **named)
    process.join(300)
    said = arguments[2].parent / f"{arguments[2].name}.said"
    return process.exitcode, said.read_text() if process.exitcode >= 0 else None


def finished(out):
    """How many shards an unfinished export has finished."""
    work = out / ".tfzip"
    return len(list(work.glob("rows-*.npz")))


def stop_at_random(process, out, rng, number=signal.SIGKILL):
    """Send a signal at any moment: now and then while the process begins, else while it writes its next shards."""
    wanted, deadline = finished(out) + rng.choice([0, 1, 2]), time.monotonic() + 120
    while number != signal.SIGKILL and not out.parent.joinpath(f"{out.name}.begun").exists():
        time.sleep(0.001)  # until it handles signals
    if rng.random() < 0.3:
        time.sleep(rng.random())
    else:
        while process.is_alive() and finished(out) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
    if process.is_alive():
        os.kill(process.pid, number)
    process.join(60)


def contents(out):
    """Every file below a folder but run.json and those of the lock, by name."""
    passing = ("run.json", "lock", "writer.json")
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in passing]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def is_done(out):
    """Whether an export is finished, and tidied up."""
    return (out / "index.zip").exists() and not (out / ".tfzip").exists()


def until_done(source, model, out, options, rng, kills, number=signal.SIGKILL, in_library=False):
    """Export, stopped at most so many times on the way, then once undisturbed; the exit codes."""
    codes = []
    while len(codes) < kills and not is_done(out):
        process = begun(source, model, out, options, in_library=in_library)
        stop_at_random(process, out, rng, number)
        codes.append(process.exitcode)
    if not is_done(out):
        codes.append(ended(source, model, out, options)[0])
    return codes
