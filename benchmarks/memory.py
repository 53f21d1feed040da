"""Peak memory of one run of one case, in a process that does nothing else.

In the measuring process itself the figure would depend on what ran before: memory that was freed but kept by
the allocator is used again and no growth is seen, and a high-water mark never falls.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

Case = dict[str, object]

# Blocks above this many bytes come from the system and go back to it at once, so that the mark shows what is
# held, not what the allocator keeps; glibc's own limit moves with what a program has freed before.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_MARK = "peak extra bytes: "


def peak_memory(script: str | Path, case: Case) -> int | None:
    """Extra bytes that one run of a case takes at its peak: results, gradients and all between.

    Args:
        script: a benchmark whose `main` begins with `child_main`.
        case: what its `build` needs, for JSON; its "device", if it has one, says where memory is counted.

    Returns:
        None if the case does not fit into memory, or if the system cannot tell.

    Raises:
        RuntimeError: the child failed otherwise; with its last line.
    """
    done = subprocess.run(
        [sys.executable, str(script), "--case", json.dumps(case)],
        env={**os.environ, **_ALLOCATOR},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode == -signal.SIGKILL:  # how Linux ends who asks for too much
        return None
    found = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode != 0 or not found:
        last = done.stderr.strip().splitlines()[-1:] or ["no result"]
        raise RuntimeError(f"memory of {json.dumps(case)} could not be measured: {last[0]}")
    return json.loads(found[-1].removeprefix(_MARK))


def child_main(build: Callable[[Case], Callable[[], object]], argv: list[str] | None = None) -> bool:
    """In a child of `peak_memory`: measure the case of its command line, print the bytes, return True.

    The case is built and run twice, and the second one counts: it makes its own gradients and states, but the
    code is loaded by then, compiled and its threads are started: tens of MB that a process pays once.

    Args:
        build: makes inputs and models, and returns what is to be measured.
        argv: arguments; default: those of this process.

    Returns:
        False if the arguments name no case: this is no such child.
    """
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 2 or argv[0] != "--case":
        return False
    case: Case = json.loads(argv[1])
    on_gpu = case.get("device") == "cuda"
    measure = _gpu_bytes if on_gpu else _host_bytes
    found = measure(build(case))
    gc.collect()
    if found is not None and (on_gpu or _reset_mark()):
        found = measure(build(case))
    print(_MARK + json.dumps(found))
    return True


def _gpu_bytes(run: Callable[[], object]) -> int | None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    try:
        run()
    except torch.OutOfMemoryError:
        return None
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - start


def _host_bytes(run: Callable[[], object]) -> int | None:
    gc.collect()
    _return_freed()
    resettable = _reset_mark()
    start, mark = _resident(), _high_water()
    try:
        run()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return None
        raise
    peak = _high_water()
    if not resettable and peak == mark:  # set-up went higher: the run stayed below, no one knows how far
        return None
    return peak - start


def _return_freed() -> None:
    """Give freed memory back to the system, or the run would use it unseen."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _reset_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _status("VmHWM") is not None


def _resident() -> int:
    found = _status("VmRSS")
    return _high_water() if found is None else found


def _high_water() -> int:
    found = _status("VmHWM")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int | None:
    """Bytes of a line of /proc/self/status."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024 * int(found[0]) if found else None
