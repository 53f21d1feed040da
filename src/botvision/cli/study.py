"""The command `study`."""

import argparse
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from botvision.cli.output import warn
from botvision.io.errors import text_of
from botvision.studies.plan import Plan, State, duration, estimate, make_plan, shown
from botvision.studies.spec import Study, load_study, study_names
from botvision.studies.timing import measure_steps, read_steps
from botvision.tables.markdown import table

if TYPE_CHECKING:
    from botvision.studies.schedule import Failure, Slot

# Step times and pictures are made after hours of training, whose numbers do not depend on them: whatever goes
# wrong there, too little memory included (torch's error is a RuntimeError), the report is written.
MISHAPS = (ValueError, OSError, MemoryError, RuntimeError)


def study(args: argparse.Namespace, overrides: Mapping[str, str]) -> int:
    """Run a study, or list those that there are.

    Args:
        args: of the command.
        overrides: dotted keys for all runs.

    Returns:
        The exit code: 0, or 2 where a run failed.

    Raises:
        ValueError: one line on what is wrong with the study, the keys, the folder or the data.
    """
    if args.study is None:
        print(list_lines([load_study(name) for name in study_names()]))
        return 0
    chosen = load_study(args.study)
    out = Path(args.out or f"runs/study-{chosen.name}-{args.scale}")
    plan = make_plan(chosen, args.scale, out, overrides)
    plan.check_folder()
    if args.report_only:
        return _report(plan, args)
    from botvision.studies.schedule import gpus, rehearse, slots_of

    copies = _copies(plan, args) if args.reuse else []
    states = plan.states()
    for name in copies:
        states[name] = "finished"
    rest = any(state != "finished" for state in states.values())
    if rest and not (args.dry_run and plan.lacks_data()):  # a plan can be shown without
        plan.check_data()
        rehearse(plan, states)
    slots = slots_of(plan, args.jobs, gpus())
    if args.dry_run:
        print(plan_lines(plan, states, slots))
        return 0
    plan.check_folder(claim=True)
    failures = _run(plan, slots, args)
    for failure in failures:
        warn(str(failure))
    if not failures or any(state == "finished" for state in plan.states().values()):
        _report(plan, args)
    return 2 if failures else 0


def _copies(plan: Plan, args: argparse.Namespace) -> list[str]:
    """Take over finished runs, or say which would be in a dry run. Return their names."""
    from botvision.studies.schedule import find_copies, locked, take_over

    folder = Path(args.reuse)
    if args.dry_run:
        found = find_copies(plan, folder)
        for name, run in found.items():
            print(f"{name}: would be taken from {run}")
    else:
        plan.check_folder(claim=True)
        with locked(plan.folder):  # a study that is being run there has its own plans for these folders
            found = take_over(plan, folder, print)
    if not found:
        missing = "is no finished run, of the same configuration and data, that is missing here"
        print(f"--reuse: below {args.reuse} {missing}")
    return list(found)


def _run(plan: Plan, slots: Sequence["Slot"], args: argparse.Namespace) -> list["Failure"]:
    from botvision.io.progress import StatusBar
    from botvision.studies.schedule import run_study

    with StatusBar(f"study {plan.study.name}", len(plan.runs)) as bar:
        bar.say(start_line(plan, plan.states(), slots))
        try:
            failures = run_study(plan, slots, bar.say, bar.show)
            if not failures and read_steps(plan) is None:
                try:
                    measure_steps(plan, bar.show)
                except MISHAPS as error:
                    bar.say(f"step times are not measured: {text_of(error)}")
            return failures
        except KeyboardInterrupt:
            done = sum(state == "finished" for state in plan.states().values())
            rest = ", the others go on where they were" if done < len(plan.runs) else ", the report is left"
            said = f"; {done} of {len(plan.runs)} runs are finished{rest} with: {_again(plan, args)}"
            raise KeyboardInterrupt(said) from None


def _report(plan: Plan, args: argparse.Namespace) -> int:
    from botvision.io.progress import StatusBar
    from botvision.studies import attention
    from botvision.studies.outcome import collect
    from botvision.studies.report import write_report

    with StatusBar("report", 3) as bar:
        bar.show(0, "reading the runs")
        outcome = collect(plan)
        warnings = list(outcome.warnings)
        if not args.no_pictures:
            bar.show(1, "looking at attention")
            try:
                pictures = attention.attention_pictures(plan, photos=not args.no_photos)
                outcome = dataclasses.replace(outcome, pictures=pictures)
            except MISHAPS as error:
                warnings.append(f"no pictures of attention: {text_of(error)}")
            try:
                uses = attention.attention_use(plan, lambda text: bar.show(1, text))
                outcome = dataclasses.replace(outcome, uses=uses)
            except MISHAPS as error:
                warnings.append(f"what attention contributes is not measured: {text_of(error)}")
        outcome = dataclasses.replace(outcome, warnings=tuple(warnings))
        bar.show(2, "drawing intervals and charts")
        written = write_report(outcome, plan.folder)
    print(written[1].read_text(encoding="utf-8"))
    print(f"written: {', '.join(shlex.quote(str(path)) for path in written)}")
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
    return f"{titles}\n\n{table(header, rows, 'llrrr')}\n\n{last}"


def plan_lines(plan: Plan, states: Mapping[str, State], slots: Sequence["Slot"]) -> str:
    """Return what would be run, and how long it would take."""
    known = estimate(plan, states, len(slots))
    rows = []
    for run in plan.runs:
        took = known.per_run[run.arm]
        elsewhere = ", ".join(f"{m.axis} {m.at:g}" for m in run.measurements)
        length = "" if took is None else duration(took)
        rows.append([run.name, states[run.name], plan.scale.arms[run.arm].label, length, elsewhere])
    runs = table(["run", "state", "arm", "time", "measured also at"], rows, "lllrl")
    note = f"\n\n{' '.join(plan.scale.note.split())}" if plan.scale.note else ""
    where = "; say where with --data.root" if plan.lacks_data() else ""
    waiting = next((run for run in plan.runs if states[run.name] != "finished"), None)
    first = "" if waiting is None else f"\nfirst: {shown(waiting.training(states[waiting.name] == 'begun'))}"
    return (
        f"{plan.study.title}\n\n{runs}\n\ndata: {plan.scale.data}{where}\nfolder: {plan.folder}"
        f"{first}{note}\n\n{start_line(plan, states, slots)}"
    )


def start_line(plan: Plan, states: Mapping[str, State], slots: Sequence["Slot"]) -> str:
    """Return how many runs there are to do, where, how long it takes, and what that is known from."""
    name, found = f"study {plan.study.name}", list(states.values())
    known, left = estimate(plan, states, len(slots)), len(found) - found.count("finished")
    if not left:
        open_ones = sum(len(run.unmeasured()) for run in plan.runs)
        rest = f", {open_ones} measurement{'s' * (open_ones != 1)} to do" if open_ones else ""
        return f"{name}: all {len(found)} runs are finished{rest}"
    time = "no estimate yet: neither a finished run nor the study file says how long they take"
    if known.left is not None:
        stated = f"the study file ({plan.scale.measured})" if plan.scale.measured else "the study file"
        sources = ["finished runs"] if known.measured else []
        sources += [stated] if len(known.measured) < len(plan.study.arms) else []
        time = f"about {duration(known.left)} by {' and '.join(sources)}"
    begun = f", {found.count('begun')} of them begun" if "begun" in found else ""
    where = f"{len(slots)} at a time on {', '.join(dict.fromkeys(slot.name for slot in slots))}"
    return f"{name}: {left} of {len(found)} runs to do{begun}, {where}: {time}"
