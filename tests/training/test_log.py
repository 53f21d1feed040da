"""Tables that survive a kill."""

from pathlib import Path

from botvision.training.log import STEPS, Table, read_rows


def rows_of(table: Table) -> list[int]:
    return [int(row["step"]) for row in read_rows(table.path)]


def filled(folder: Path, count: int) -> Table:
    table = Table(folder / "steps.csv", STEPS, keep_until=0)
    for step in range(1, count + 1):
        table.append({"step": step, "epoch": 1, "loss": 0.1 * step, "lr": 1e-3})
    return table


def test_floats_read_back_to_the_last_bit(tmp_path: Path):
    table = filled(tmp_path, 3)
    assert [float(row["loss"]) for row in read_rows(table.path)] == [0.1 * 1, 0.1 * 2, 0.1 * 3]


def test_rows_after_the_restored_step_are_dropped(tmp_path: Path):
    table = filled(tmp_path, 5)
    resumed = Table(table.path, STEPS, keep_until=3)
    assert rows_of(resumed) == [1, 2, 3]
    resumed.append({"step": 4, "epoch": 1, "loss": 0.5, "lr": 0.1})
    assert rows_of(resumed) == [1, 2, 3, 4]


def test_a_line_cut_off_by_a_kill_is_dropped_even_if_its_step_fits(tmp_path: Path):
    table = filled(tmp_path, 2)
    with table.path.open("a") as file:
        file.write("3,1,0.2")
    assert rows_of(table) == [1, 2]
    resumed = Table(table.path, STEPS, keep_until=3)
    resumed.append({"step": 3, "epoch": 1, "loss": 0.25, "lr": 0.1})
    assert [row["loss"] for row in read_rows(table.path)][2:] == ["0.25"]


def test_a_new_run_starts_afresh(tmp_path: Path):
    assert rows_of(Table(filled(tmp_path, 4).path, STEPS, keep_until=0)) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["steps.csv"]
