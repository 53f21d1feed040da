"""The command ``study``. It speaks through functions that `cli` hands in."""

import argparse
import dataclasses
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from botvision.studies.estimate import duration, estimate
from botvision.studies.plan import Plan, State, make_plan, missing_measurements, shown
from botvision.studies.rehearsal import rehearse
from botvision.studies.reuse import find_copies, take_over
from botvision.studies.spec import Study, load_study, study_names
from botvision.studies.timing import measure_steps, read_steps
from botvision.tables import markdown

if TYPE_CHECKING:
    from botvision.io.progress import StatusBar
    from botvision.studies.schedule import Failure, Slot

Say = Callable[[str], object]

# Step times and pictures are made after hours of training, whose numbers do not depend on them: whatever goes
# wrong there, too little memory included (torch's error is a RuntimeError), the report is written.
MISHAPS = (ValueError, OSError, MemoryError, RuntimeError)


def study(args: argparse.Namespace, overrides: Mapping[str, str], say: Say, complain: Say) -> int:
    """Run a study, or list those that there are.

    Args:
        args: of the command.
        overrides: dotted keys for all runs.
        say: prints a line of output.
        complain: prints one line on a run that failed.

    Returns:
        The exit code: 0, or 2 where a run failed.

    Raises:
        ValueError: one line on what is wrong with the study, the keys, the folder or the data.
    """
    if args.study is None:
        say(list_lines([load_study(name) for name in study_names()]))
        return 0
    chosen = load_study(args.study)
    out = Path(args.out or f"runs/study-{chosen.name}-{args.scale}")
    plan = make_plan(chosen, args.scale, out, overrides)
    plan.check_folder()
    if args.report_only:
        return _report(plan, say, args)
    copies = _copies(plan, args, say) if args.reuse else []
    states = plan.states()
    for name in copies:
        states[name] = "finished"
    rest = any(state != "finished" for state in states.values())
    if rest and not (args.dry_run and plan.lacks_data()):  # a plan can be shown without
        plan.check_data()
        rehearse(plan, states)
    from botvision.studies.schedule import gpus, slots_of

    slots = slots_of(plan, args.jobs, gpus())
    if args.dry_run:
        say(plan_lines(plan, states, slots))
        return 0
    plan.claim_folder()
    failures = _run(plan, slots, _again(plan, args))
    for failure in failures:
        complain(str(failure))
    if not failures or any(state == "finished" for state in plan.states().values()):
        _report(plan, say, args)
    return 2 if failures else 0


def _copies(plan: Plan, args: argparse.Namespace, say: Say) -> list[str]:
    """Take over finished runs, or say which would be in a dry run. Return their names."""
    if args.dry_run:
        found = find_copies(plan, Path(args.reuse))
        for name, folder in found.items():
            say(f"{name}: would be taken from {folder}")
        _say_none(args, found, say)
        return list(found)
    from botvision.studies.schedule import locked

    plan.claim_folder()
    with locked(plan.folder):  # a study that is being run there has its own plans for these folders
        found = take_over(plan, Path(args.reuse), say)
    _say_none(args, found, say)
    return found


def _say_none(args: argparse.Namespace, found: Collection[str], say: Say) -> None:
    if not found:
        say(
            f"--reuse: below {args.reuse} is no finished run, of the same configuration and data, that is "
            "missing here"
        )


def _run(plan: Plan, slots: Sequence["Slot"], again: str) -> list["Failure"]:
    from botvision.io.progress import StatusBar
    from botvision.studies.schedule import run_study

    with StatusBar(f"study {plan.study.name}", len(plan.runs)) as bar:
        bar.say(start_line(plan, plan.states(), slots))
        try:
            failures = run_study(plan, slots, bar.say, bar.show)
            if not failures and read_steps(plan) is None:
                _measure(plan, bar)
            return failures
        except KeyboardInterrupt:
            done = sum(state == "finished" for state in plan.states().values())
            rest = ", the others go on where they were" if done < len(plan.runs) else ", the report is left"
            raise KeyboardInterrupt(
                f"; {done} of {len(plan.runs)} runs are finished{rest} with: {again}"
            ) from None


def _measure(plan: Plan, bar: "StatusBar") -> None:
    try:
        measure_steps(plan, bar.show)
    except MISHAPS as error:
        bar.say(f"step times are not measured: {_line(error)}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _report(plan: Plan, say: Say, args: argparse.Namespace) -> int:
    from botvision.io.progress import StatusBar
    from botvision.studies.collect import collect
    from botvision.studies.page import write_report
    from botvision.studies.pictures import attention_pictures
    from botvision.studies.use import attention_use

    with StatusBar("report", 3) as bar:
        bar.show(0, "reading the runs")
        outcome = collect(plan)
        if not args.no_pictures:
            bar.show(1, "looking at attention")
            try:
                pictures = attention_pictures(plan, photos=not args.no_photos)
                outcome = dataclasses.replace(outcome, pictures=pictures)
            except MISHAPS as error:
                warning = f"no pictures of attention: {_line(error)}"
                outcome = dataclasses.replace(outcome, warnings=(*outcome.warnings, warning))
            try:
                uses = attention_use(plan, lambda _, text: bar.show(1, text))
                outcome = dataclasses.replace(outcome, uses=uses)
            except MISHAPS as error:
                warning = f"what attention contributes is not measured: {_line(error)}"
                outcome = dataclasses.replace(outcome, warnings=(*outcome.warnings, warning))
        bar.show(2, "drawing intervals and charts")
        written = write_report(outcome, plan.folder)
    say(written[1].read_text(encoding="utf-8"))
    say(f"written: {', '.join(shlex.quote(str(path)) for path in written)}")
    return 0


def _again(plan: Plan, args: argparse.Namespace) -> str:
    keys = [word for key, value in plan.overrides.items() for word in (f"--{key}", value)]
    flags = ["--jobs", str(args.jobs)] if args.jobs else []
    flags += ["--no-photos"] if args.no_photos else []
    flags += ["--no-pictures"] if args.no_pictures else []
    return shown(["study", args.study, "--scale", plan.scale_name, "--out", str(plan.folder), *flags, *keys])


def list_lines(studies: Sequence[Study]) -> str:
    """Return the table of studies, with what their scales cost."""
    rows = []
    for found in studies:
        for name, scale in found.scales.items():
            minutes = [scale.minutes_of(arm) for arm in found.arms]
            known = [value for value in minutes if value is not None]
            cost = duration(sum(known) * len(scale.seeds)) if len(known) == len(minutes) else "not known"
            rows.append([found.name, name, len(found.arms), len(scale.seeds), cost])
    header = ["study", "scale", "arms", "seeds", "time of all runs, summed"]
    titles = "\n".join(f"{found.name}: {found.title}" for found in studies)
    last = "next: botvision study STUDY --dry-run [--data.root DIR]"
    return f"{titles}\n\n{markdown.table(header, rows, 'llrrr')}\n\n{last}"


def plan_lines(plan: Plan, states: Mapping[str, State], slots: Sequence["Slot"]) -> str:
    """Return what would be run, and how long it would take."""
    known = estimate(plan, states, len(slots))
    rows = []
    for run in plan.runs:
        took = known.per_run[run.arm]
        elsewhere = ", ".join(f"{m.axis} {m.at:g}" for m in run.measurements)
        length = "" if took is None else duration(took)
        rows.append([run.name, states[run.name], plan.scale.arms[run.arm].label, length, elsewhere])
    table = markdown.table(["run", "state", "arm", "time", "measured also at"], rows, "lllrl")
    note = f"\n\n{' '.join(plan.scale.note.split())}" if plan.scale.note else ""
    where = "; say where with --data.root" if plan.lacks_data() else ""
    waiting = next((run for run in plan.runs if states[run.name] != "finished"), None)
    first = "" if waiting is None else f"\nfirst: {shown(waiting.training(states[waiting.name] == 'begun'))}"
    return (
        f"{plan.study.title}\n\n{table}\n\ndata: {plan.scale.data}{where}\nfolder: {plan.folder}"
        f"{first}{note}\n\n{start_line(plan, states, slots)}"
    )


def start_line(plan: Plan, states: Mapping[str, State], slots: Sequence["Slot"]) -> str:
    """Return how many runs there are to do, where, how long it takes, and what that is known from."""
    found = list(states.values())
    known, left = estimate(plan, states, len(slots)), len(found) - found.count("finished")
    where = f"{len(slots)} at a time on {', '.join(dict.fromkeys(slot.name for slot in slots))}"
    if not left:
        open_ones = sum(len(missing_measurements(run)) for run in plan.runs)
        rest = f", {open_ones} measurement{'s' * (open_ones != 1)} to do" if open_ones else ""
        return f"study {plan.study.name}: all {len(found)} runs are finished{rest}"
    if known.left is None:
        time = "no estimate yet: neither a finished run nor the study file says how long they take"
    else:
        measured = [arm for arm in plan.study.arms if arm in known.measured]
        stated = f"the study file ({plan.scale.measured})" if plan.scale.measured else "the study file"
        source = "finished runs" if len(measured) == len(plan.study.arms) else stated
        if 0 < len(measured) < len(plan.study.arms):
            source += ", corrected by the runs that are finished"
        time = f"{known} by {source}"
    begun = f", {found.count('begun')} of them begun" if "begun" in found else ""
    return f"study {plan.study.name}: {left} of {len(found)} runs to do{begun}, {where}: {time}"
