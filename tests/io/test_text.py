"""Names that others gave, on a terminal."""

import sys

from botvision.cli.output import warn
from botvision.io.progress import CountBar
from botvision.io.text import printable, printable_output
from botvision.tables.markdown import table

NAME = "a\x1b[31mX\x1b]0;title\x07\x7f\x9b2J\r\u202eé"
SHOWN = r"a\x1b[31mX\x1b]0;title\x07\x7f\x9b2J\x0d\u202eé"


def test_control_characters_are_shown_as_escapes():
    assert printable(NAME) == SHOWN
    assert printable("a\tb\nü 漢 🙂 \udce9") == "a\tb\nü 漢 🙂 \udce9"


def test_nothing_that_is_shown_reaches_the_terminal_as_it_is(capsys):
    with printable_output():
        sys.stdout.write(f"{NAME}\n")
        sys.stdout.flush()
    warn(NAME.replace("\r", ""))
    with CountBar() as bar:
        bar.say(NAME)
    captured = capsys.readouterr()
    assert captured.out == f"{SHOWN}\n"
    assert captured.err == f"botvision: {SHOWN}\n{SHOWN}\n".replace(r"\x0d", "", 1)
    assert SHOWN in table(["name"], [[NAME]], "l")
    sys.stdout.write(NAME)
    assert capsys.readouterr().out == NAME  # the stream is what it was
