"""Files that are not used are counted by reason."""

from pathlib import Path

from botvision.data.left_out import Choices, LeftOut


def test_each_reason_is_a_line_with_its_first_files() -> None:
    left = LeftOut()
    for name in "abcd":
        left.add("hidden", f"{name}.jpg")
    left.add("cannot be read (HEIC)", Path("sub/e.heic"))
    assert len(left) == 5
    assert left.notes() == [
        "left out: 4 files, hidden (a.jpg, b.jpg, c.jpg, ...)",
        "left out: 1 file, cannot be read (HEIC) (sub/e.heic)",
    ]


def test_nothing_left_out_says_nothing() -> None:
    assert LeftOut().notes() == []


def test_a_file_counts_once_and_may_have_particulars() -> None:
    choices = Choices()
    for _ in range(2):
        choices.take({"with several pages": "5"}, "a.tif")
    assert choices.notes() == ["1 file with several pages (a.tif: 5)"]
    assert choices.told() == ["1 file with several pages (a.tif: 5)"]
    assert choices.told() == []
