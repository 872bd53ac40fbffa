"""The second process that draws figures: it does its share, ends with the first, and may fail."""

import pytest

import too_feature as script
from ecg.output import figures, helper
from tests.support.results import write_results


@pytest.fixture
def drawn(monkeypatch):
    """Have this process draw nothing; return what it would draw, call by call."""
    calls = []
    monkeypatch.setattr(figures, "make_all", lambda folder, only=None: calls.append(only))
    return calls


OWN = [name for name in figures.NAMES if name not in ("features", "examples", "page")]


def test_the_helper_draws_its_share_and_the_page_waits_for_it(tmp_path, drawn):
    write_results(tmp_path / "run", ["AF", "Normal"], tested=[0])
    second = helper.Helper()
    helper.draw_all(tmp_path / "run", second)
    assert drawn == [OWN, ["page"]]
    names = sorted(file.name for file in (tmp_path / "run/figures").iterdir())
    assert names == ["ecg_1_af.pdf", "ecg_1_af.png", "features.pdf", "features.png"]


def test_what_a_helper_that_was_killed_has_not_drawn_is_drawn_here(tmp_path, drawn):
    write_results(tmp_path / "run")
    second = helper.Helper()
    second.process.kill()
    second.process.wait()
    helper.draw_all(tmp_path / "run", second)
    assert drawn == [OWN, helper.SHARE, ["page"]]


def test_a_helper_that_is_told_nothing_ends_with_the_first_process():
    second = helper.Helper()
    second.process.stdin.close()    # as the system does when a process is gone
    assert second.process.wait(60) == 0


@pytest.mark.parametrize("n, changes, is_started", [
    (100, {}, True),
    (99, {}, False),
    (100, {"figures": False}, False),
    (100, {"jobs": 1}, False)])
def test_a_helper_is_started_where_it_is_worth_it(n, changes, is_started, monkeypatch):
    started = []
    monkeypatch.setattr(helper, "Helper", lambda: started.append(True))
    recipe = script.Recipe(epochs=script.WORTH_HELPER // 100)
    script.start_helper(script.Settings(recipe=recipe, **{"jobs": 2, **changes}), n)
    assert bool(started) == is_started


def test_a_run_goes_on_where_no_process_can_be_started(monkeypatch):
    def fails():
        raise OSError("no memory")

    monkeypatch.setattr(helper, "Helper", fails)
    assert script.start_helper(script.Settings(jobs=2), script.WORTH_HELPER) is None
