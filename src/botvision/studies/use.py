"""How much of its score the arm that a study looks at owes to its attention, seed by seed."""

from collections.abc import Callable

from botvision.metrics.attention_use import load_use
from botvision.studies.outcome import Use
from botvision.studies.plan import Plan


def attention_use(plan: Plan, tell: Callable[[int, str], None] | None = None) -> tuple[Use, ...]:
    """Evaluate the finished runs of the arm that the study looks at with their attention replaced.

    What was measured before, by `botvision eval RUN --attention all` too, is taken from the run folders.

    Args:
        plan: of the study.
        tell: called with the number of runs that are done, and what is going on.

    Returns:
        One for each finished run; none where the study looks at no arm.

    Raises:
        ValueError: the run's data cannot be opened, or its network has no attention.
    """
    from botvision.training.attention_use import Images, measure_use

    wanted, found = plan.study.attention, []
    for run in plan.of_arm(wanted.arm) if wanted is not None else ():
        if run.state() != "finished":
            continue
        if tell is not None:
            tell(len(found), f"{run.folder.name} without its attention")
        use = load_use(run.folder / "attention_use.json")
        if use is None:
            root = run.config.data.root
            moved = {} if root is None else {"data.root": root}
            use, _ = measure_use(Images(run.folder, "val", moved), thorough=False)
        found.append(Use(run.arm, run.seed, use))
    return tuple(found)
