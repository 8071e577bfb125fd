import io
import sys

import pytest

from berg.system.progress import progress_bar, transfer_bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_no_bar_is_drawn_where_nobody_sees_it(capsys):
    with progress_bar("model", 3, "stimuli") as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_a_bar_that_was_asked_for_counts_on_standard_error(capsys):
    with progress_bar("fmri-model", 4, "stimuli", show=True) as advance:
        advance(1)
        advance(3)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "fmri-model" in printed.err
    assert "4/4" in printed.err
    assert "stimuli/s" in printed.err


def test_a_bar_that_was_refused_is_not_drawn_on_a_terminal_either(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("model", 3, "stimuli", show=False) as advance:
        advance(3)
    assert terminal.getvalue() == ""


def test_a_terminal_gets_a_bar_by_itself(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar("model", 7, "stimuli") as advance:
        advance(7)
    assert "7/7" in terminal.getvalue()


def test_a_program_without_standard_error_gets_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    done = []
    with progress_bar("model", 1, "stimuli") as advance:
        advance(1)
        done.append(1)
    assert done == [1]


@pytest.mark.parametrize("show", [True, False])
def test_an_error_inside_goes_through(show):
    with pytest.raises(KeyError, match="inside"), progress_bar("model", 3, "stimuli", show=show):
        raise KeyError("inside")


def test_a_file_that_begins_anew_counts_once_in_all(capsys):
    with transfer_bars(100, show=True) as bars:
        bars.begin("weights", 50, 10)(5)
        bars.begin("weights", 50, 0)(3)
        assert [(task.description, task.completed) for task in bars._bars.tasks] == [("in all", 3), ("weights", 3)]
