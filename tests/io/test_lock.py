"""One writer for a folder; the lock goes with its process."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from botvision.io import lock
from botvision.io.lock import FolderInUseError, locked, refuse_held

HOLDER = """
import os, sys, time
from pathlib import Path
from botvision.io.lock import locked
with locked(Path(sys.argv[1]), "a run is being trained"):
    if len(sys.argv) > 2 and os.fork() == 0:  # as a loader's process, which outlives its parent for a while
        time.sleep(1)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def hold(path: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *more], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path: Path):
    path = tmp_path / "r" / "run.lock"
    process = hold(path)
    line = rf"^{tmp_path / 'r'}: a run is being trained here already \(process {process.pid}, or one that"
    with pytest.raises(FolderInUseError, match=line), locked(path, "a run is being trained"):
        pass
    with pytest.raises(FolderInUseError, match=line):
        refuse_held(path, "a run is being trained")
    process.kill()
    process.wait()
    assert path.exists()
    refuse_held(path, "a run is being trained")
    with locked(path, "a run is being trained"):
        assert path.read_text().startswith(f"{os.getpid()} ")
    assert not path.exists()


def test_what_a_killed_process_has_started_is_waited_for(tmp_path: Path):
    path = tmp_path / "run.lock"
    process = hold(path, "with a child")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with locked(path, "a run is being trained"):
        assert 0.1 < time.monotonic() - began < 10


def test_a_folder_that_stays_empty_goes_and_others_stay(tmp_path: Path):
    with locked(tmp_path / "new" / "run.lock", "x"):
        assert (tmp_path / "new" / "run.lock").is_file()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with locked(tmp_path / "old" / "run.lock", "x"):
        pass
    assert (tmp_path / "old").is_dir()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    lines: list[str] = []
    with locked(tmp_path / "run.lock", "x", lines.append):
        pass
    assert lines == [
        f"note: {tmp_path}: no locks on this file system (no locks available): nobody else is kept out"
    ]
