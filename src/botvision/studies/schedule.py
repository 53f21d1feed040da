"""Runs what of a study is not there yet: a process for each run, one a device; safe against kills.

What is finished is not touched, what was begun goes on from its last checkpoint, and a run that fails does
not stop the others. The processes die with this one, and whatever lives holds the folder's lock.
"""

import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from botvision.coco.sides import side_twins
from botvision.config.recipes import load_config, with_absolute_paths
from botvision.config.schema import ConfigError
from botvision.io import lock
from botvision.metrics.bootstrap import SIDES
from botvision.studies.plan import Plan, PlannedRun, State, duration, estimate, shown

POLL_SECONDS, SHOW_SECONDS = 0.2, 2.0
GRACE_SECONDS = 10.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
COMMAND = (sys.executable, "-m", "botvision")  # botvision itself, whatever it is called here
PR_SET_PDEATHSIG = 1  # linux/prctl.h
TAKEN = "taken_from.txt"  # in the folder of a run that was copied: study's folder and run's folder
NOT_COPIED = shutil.ignore_patterns("checkpoints", "tensorboard")  # a finished run is not gone on with


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
        return f"{self.run}: failed: {self.reason} (its output: {self.log})"


def gpus() -> list[str]:
    """Return the names of the GPUs that torch may use, as CUDA_VISIBLE_DEVICES takes them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return chosen[:count] if len(chosen) >= count else [str(i) for i in range(count)]


def slots_of(plan: Plan, jobs: int | None, devices: Sequence[str]) -> list[Slot]:
    """Return the places where runs go.

    Args:
        plan: of the study.
        jobs: runs at a time; by default one a GPU, or as many as have `threads` processors each.
        devices: GPUs.
    """
    threads = plan.scale.threads
    own = dict.fromkeys(THREAD_VARIABLES, str(threads))
    if devices and all(run.config.train.device != "cpu" for run in plan.runs):
        names = [devices[i % len(devices)] for i in range(jobs or len(devices))]
        return [Slot(f"GPU {name}", {**own, "CUDA_VISIBLE_DEVICES": name}) for name in names]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [Slot("CPU", own)] * (jobs or max(1, cores // threads))


def rehearse(plan: Plan, states: Mapping[str, State]) -> None:
    """Open the data and build the network of each arm that is still to be trained, on the meta device.

    What would end a run in its first seconds is so found before any of them takes its hours.

    Raises:
        ConfigError: one line with the run that could not be trained, or the arm that has no attention to be
            looked at.
    """
    import torch

    from botvision.inference.attention_maps import find_attention
    from botvision.training.run import task_of

    opened: dict[Any, Any] = {}
    for arm in plan.study.arms:
        run = next((run for run in plan.of_arm(arm) if states[run.name] != "finished"), None)
        if run is None:
            continue
        key = repr({**dataclasses.asdict(run.config.data), "image_size": None})  # of the same images
        try:
            task = task_of(run.config)
            if key not in opened:
                opened[key] = task.open()
            with torch.device("meta"):
                network = task.build(opened[key])
        except ValueError as error:
            raise ConfigError(f"{run.name}: {error}") from None
        if SIDES in plan.study.metrics and not side_twins(opened[key].classes):
            line = f"metrics.{SIDES}: no classes of these data are the left and the right of the same thing"
            raise ConfigError(f"{run.name}: {line}")
        if plan.study.attention is not None and arm == plan.study.attention.arm:
            try:
                find_attention(network)
            except ValueError as error:
                raise ConfigError(f"attention.arm: {arm}: {error}") from None


def locked(folder: Path) -> AbstractContextManager[int]:
    """Keep a second study out of a folder, see `botvision.io.lock.locked`."""
    return lock.locked(folder / "study.lock", "a study is being run")


class _Job:
    """One run on its way: training first, then each measurement that is not there yet."""

    def __init__(self, run: PlannedRun, state: State, slot: Slot, held: int) -> None:
        self.run, self.slot, self._lock = run, slot, held
        self.failure: Failure | None = None
        self._commands = self._steps(state)
        self._process: subprocess.Popen[bytes] | None = None
        self.advance()

    def advance(self) -> bool:
        """Go on where a process has ended. Return whether the job is over."""
        try:
            code = 0 if self._process is None else self._process.poll()
            if code is None:
                return False
            if code != 0:
                raise ValueError(_reason(self.run.log, code))
            words = next(self._commands, None)
        except ValueError as error:
            self.failure = Failure(self.run.name, str(error), self.run.log)
            return True
        if words is not None:
            self._start(words)
        return words is None

    def stop(self) -> None:
        """End its process; what it had reached by its last checkpoint stays."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _steps(self, state: State) -> Iterator[list[str]]:
        if state != "finished":
            yield self.run.training(resume=state == "begun")
        for wanted in self.run.unmeasured():
            yield self.run.measuring(wanted)

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


def run_study(
    plan: Plan, slots: Sequence[Slot], tell: Callable[[str], None], show: Callable[[int, str], None]
) -> list[Failure]:
    """Run what is not there yet.

    Args:
        plan: of the study.
        slots: where; one process in each.
        tell: receives a line for each run that begins or is done.
        show: receives, every few seconds, how many runs are done and what is going on.

    Returns:
        Runs that failed.

    Raises:
        ConfigError: the folder is in use, or holds other runs.
        KeyboardInterrupt: after the processes have ended.
    """
    begins = {"new": "begins", "begun": "goes on", "finished": "is measured elsewhere"}
    with locked(plan.folder) as held:
        states = plan.states()
        waiting = [run for run in plan.runs if states[run.name] != "finished" or run.unmeasured()]
        done = len(plan.runs) - len(waiting)
        free, active, failures = list(slots), list[_Job](), list[Failure]()
        shown_at = -SHOW_SECONDS
        try:
            while waiting or active:
                while free and waiting:
                    run = waiting.pop(0)
                    tell(f"{run.name}: {begins[states[run.name]]}, output in {run.log}")
                    active.append(_Job(run, states[run.name], free.pop(0), held))
                time.sleep(POLL_SECONDS)
                for job in [job for job in active if job.advance()]:
                    active.remove(job)
                    free.append(job.slot)
                    done += 1
                    failures += [job.failure] if job.failure else []
                    states[job.run.name] = job.run.state()
                    tell(f"[{done}/{len(plan.runs)}] {job.run.name}: {_ended(plan, job)}")
                if time.monotonic() > shown_at + SHOW_SECONDS:
                    left = estimate(plan, states, len(slots)).left
                    running = [f"{job.run.name} {100 * (1 - job.run.part_left):.0f} %" for job in active]
                    show(done, ", ".join(running) + ("" if left is None else f"; {duration(left)} left"))
                    shown_at = time.monotonic()
        finally:
            for job in active:
                job.stop()
    return failures


def _ended(plan: Plan, job: _Job) -> str:
    if job.failure is not None:
        return f"failed: {job.failure.reason}"
    facts, took = job.run.summary(), job.run.minutes
    scores = [
        f"{metric.title} {100 * facts[name]:.2f}"
        for name, metric in plan.study.metrics.items()
        if isinstance(facts.get(name), int | float)
    ]
    return ", ".join(scores) + ("" if took is None else f" ({duration(took)})")


def _reason(log: Path, code: int) -> str:
    """The line in which the command says what is wrong, or the last one."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return last.removeprefix("botvision: ") or f"exit code {code}"


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


def find_copies(plan: Plan, folder: Path) -> dict[str, Path]:
    """Find finished runs of the same configuration and data, for runs that are not there yet.

    On the same machine a run is a function of its configuration: a copy is as good as a repetition.

    Args:
        plan: of the study.
        folder: below which, at most three levels down, finished runs lie, such as another study's.

    Returns:
        Folder of the run to be copied, by name of the study's run.

    Raises:
        ConfigError: no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"--reuse: {folder}: no such folder")
    waiting = [run for run in plan.runs if not run.folder.exists()]
    found = {path.parent for depth in (1, 2, 3) for path in folder.glob("*/" * depth + "summary.json")}
    copies = {}
    for other in sorted(path for path in found if not path.name.startswith(".")):  # a copy that was cut off
        run = next((run for run in waiting if _is_same(run, other)), None)
        if run is not None:
            waiting.remove(run)
            copies[run.name] = other
    return copies


def take_over(plan: Plan, folder: Path, tell: Callable[[str], object]) -> list[str]:
    """Copy what `find_copies` finds, each run as a whole, and return the names of the study's runs.

    The plan's folder is its own already, and nobody else works in it.
    """
    copies = find_copies(plan, folder)
    for name, source in copies.items():
        partial = plan.folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, ignore=NOT_COPIED)
        whose = taken_from(source) or f"{source.resolve().parent.name}/{source.name}"
        (partial / TAKEN).write_text(f"{whose}\n", encoding="utf-8")
        partial.rename(plan.folder / name)
        tell(f"{name}: taken from {source}")
    return list(copies)


def taken_from(folder: Path) -> str | None:
    """Return whose run a copied one is, as "study/run"; None for a run of the study's own."""
    path = folder / TAKEN
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def _is_same(run: PlannedRun, other: Path) -> bool:
    try:
        there = load_config(other / "config.yaml")
    except (ConfigError, OSError):
        return False
    if run.differing(there) is not None:
        return False
    ours, theirs = with_absolute_paths(run.config).data.root, there.data.root
    if ours is None or theirs is None:
        return ours == theirs
    return Path(ours).exists() and Path(theirs).exists() and Path(ours).samefile(theirs)
