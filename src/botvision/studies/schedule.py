"""Runs what of a study is not there yet: a process for each run, one a device; safe against kills.

What is finished is not touched, what was begun goes on from its last checkpoint, and a run that fails does
not stop the others. The processes die with this one, and whatever lives holds the folder's lock.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from botvision.config.schema import ConfigError
from botvision.studies.estimate import duration, epochs_done, estimate, minutes, summary
from botvision.studies.plan import Plan, PlannedRun, State, missing_measurements, shown

POLL_SECONDS, SHOW_SECONDS = 0.2, 2.0
LOCK_SECONDS = 10.0  # processes of a study that was killed need a moment to end
GRACE_SECONDS = 10.0
# What `train` may have written into a folder when it was killed before config.yaml made it a run.
BEFORE_A_RUN = {"versions.json", "warm_start.txt"}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
COMMAND = (sys.executable, "-m", "botvision")  # botvision itself, whatever it is called here
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place for one process at a time.

    Attributes:
        name: for people.
        environment: variables that bind a process to it.
    """

    name: str
    environment: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run whose process ended with an error."""

    run: str
    reason: str
    log: Path

    def __str__(self) -> str:
        """One line."""
        return f"{self.run}: failed: {self.reason} (its output: {self.log})"


def gpus() -> list[str]:
    """Returns names of the GPUs that torch may use, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return chosen[:count] if len(chosen) >= count else [str(i) for i in range(count)]


def slots_of(plan: Plan, jobs: int | None, devices: Sequence[str]) -> list[Slot]:
    """Returns the places where runs go.

    Args:
        plan: of the study.
        jobs: runs at a time; by default one a GPU, or as many as have `threads` processors each.
        devices: GPUs.
    """
    threads = plan.scale.threads
    own = dict.fromkeys(THREAD_VARIABLES, str(threads))
    wanted = {run.config.train.device for run in plan.runs}
    if devices and "cpu" not in wanted:
        count = jobs or len(devices)
        names = [devices[i % len(devices)] for i in range(count)]
        return [Slot(f"GPU {name}", {**own, "CUDA_VISIBLE_DEVICES": name}) for name in names]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = jobs or max(1, cores // threads)
    return [Slot("CPU", own)] * count


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Keeps a second study out of a folder; yields the open lock, for processes that inherit it.

    Raises:
        ConfigError: another study, or a process that one left behind, works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "study.lock").open("a+") as file:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    file.seek(0)
                    who = file.read().strip() or "unknown"
                    raise ConfigError(
                        f"{folder}: a study is being run here already (process {who}, or one that it started)"
                    ) from None
                time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


class _Job:
    """One run on its way: training first, then each measurement that is not there yet.

    Args:
        run: of the plan.
        state: "new" or "begun", or "finished" where measurements are missing.
        slot: where it goes.
        lock: descriptor that its processes inherit.
    """

    def __init__(self, run: PlannedRun, state: State, slot: Slot, lock: int) -> None:
        self.run, self.slot, self._lock = run, slot, lock
        self.failure: Failure | None = None
        self._commands = self._steps(state)
        self._process: subprocess.Popen[bytes] | None = None
        self.advance()

    def advance(self) -> bool:
        """Goes on where a process has ended. Returns whether the job is over."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return False
            if code != 0:
                self.failure = Failure(self.run.name, _reason(self.run.log, code), self.run.log)
                return True
        try:
            words = next(self._commands, None)
        except ValueError as error:
            self.failure = Failure(self.run.name, str(error), self.run.log)
            return True
        if words is None:
            return True
        self._start(words)
        return False

    def stop(self) -> None:
        """Ends its process; what it had reached by its last checkpoint stays."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _steps(self, state: State) -> Iterator[list[str]]:
        if state == "new":
            _clear(self.run.folder)
        if state != "finished":
            yield self.run.training(resume=state == "begun")
        yield from missing_measurements(self.run)

    def _start(self, words: list[str]) -> None:
        self.run.log.parent.mkdir(parents=True, exist_ok=True)
        with self.run.log.open("ab") as log:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"\n[{stamp}, {self.slot.name}] {shown(words)}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [*COMMAND, *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **self.slot.environment},
                pass_fds=(self._lock,), preexec_fn=_dies_with_parent(),
            )  # fmt: skip


def is_done(run: PlannedRun, state: State) -> bool:
    """Returns whether nothing is left to do for a run."""
    return state == "finished" and not missing_measurements(run)


def run_study(
    plan: Plan, slots: Sequence[Slot], tell: Callable[[str], None], show: Callable[[int, str], None]
) -> list[Failure]:
    """Runs what is not there yet.

    Args:
        plan: of the study.
        slots: where; one process in each.
        tell: receives a line for each run that is done.
        show: receives, every few seconds, how many runs are done and what is going on.

    Returns:
        Runs that failed.

    Raises:
        ConfigError: the folder is in use, or holds other runs.
        KeyboardInterrupt: after the processes have ended.
    """
    with locked(plan.folder) as lock:
        states = plan.states()
        waiting = [run for run in plan.runs if not is_done(run, states[run.name])]
        done = len(plan.runs) - len(waiting)
        free, active, failures = list(slots), list[_Job](), list[Failure]()
        shown_at = -SHOW_SECONDS
        try:
            while waiting or active:
                while free and waiting:
                    run = waiting.pop(0)
                    tell(f"{run.name}: {_begins(states[run.name])}, output in {run.log}")
                    active.append(_Job(run, states[run.name], free.pop(0), lock))
                time.sleep(POLL_SECONDS)
                for job in [job for job in active if job.advance()]:
                    active.remove(job)
                    free.append(job.slot)
                    done += 1
                    failures += [job.failure] if job.failure else []
                    states[job.run.name] = job.run.state()
                    tell(f"[{done}/{len(plan.runs)}] {job.run.name}: {_ended(plan, job)}")
                if time.monotonic() > shown_at + SHOW_SECONDS:
                    show(done, _going_on(plan, states, active, len(slots)))
                    shown_at = time.monotonic()
        finally:
            for job in active:
                job.stop()
    return failures


def _begins(state: State) -> str:
    return {"new": "begins", "begun": "goes on", "finished": "is measured elsewhere"}[state]


def _ended(plan: Plan, job: _Job) -> str:
    if job.failure is not None:
        return f"failed: {job.failure.reason}"
    facts = summary(job.run.folder)
    scores = [
        f"{m.title} {100 * facts[name]:.2f}"
        for name, m in plan.study.metrics.items()
        if isinstance(facts.get(name), int | float)
    ]
    took = minutes(job.run.folder)
    return ", ".join(scores) + ("" if took is None else f" ({duration(took)})")


def _going_on(plan: Plan, states: Mapping[str, State], active: Sequence[_Job], slots: int) -> str:
    parts = []
    for job in active:
        epochs = job.run.config.train.epochs
        at = min(epochs_done(job.run.folder) + 1, epochs)
        parts.append(f"{job.run.name} epoch {at}/{epochs}")
    left = estimate(plan, states, slots).left
    return ", ".join(parts) + ("" if left is None else f"; {duration(left)} left")


def _clear(folder: Path) -> None:
    """Removes what a training that was killed in its first moments left; `train` wants an empty folder."""
    if not folder.is_dir():
        return
    names = [path.name for path in folder.iterdir()]
    if all(name in BEFORE_A_RUN or (name.startswith(".") and name.endswith(".tmp")) for name in names):
        shutil.rmtree(folder)


def _reason(log: Path, code: int) -> str:
    """The line in which the command says what is wrong, or the last one."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line.removeprefix("botvision: ") for line in lines if line.startswith("botvision: ")]
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return said[-1] if said and lines[-1].startswith("botvision: ") else last or f"exit code {code}"


def _dies_with_parent() -> Callable[[], Any] | None:
    """What a new process does first: asks Linux to be killed with its parent, so that none stays behind."""
    if not sys.platform.startswith("linux"):
        return None  # it then goes on to its end, and the lock keeps others out until then
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask
