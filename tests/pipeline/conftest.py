"""A finished ensemble, which the tests of this folder compare with the run of one model."""

import contextlib
import io

import pytest

import too_feature as script
from tests.support.runs import LABELS, TINY, finished_run, once


@pytest.fixture(scope="session")
def ensemble_run(demo_dir, tmp_path_factory):
    """A tiny ensemble by the thesis recipe, which prepares records in another way."""
    def make(folder):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = script.main([
                "--labels", str(LABELS), "--data-dir", str(demo_dir), "--output",
                str(folder / "model.keras"), "--results", str(folder / "results"), *TINY,
                "--no-cache", "--recipe", "thesis", "--repeats", "2", "--jobs", "1",
                "--sequence-length", "100"])
        assert code == 0
        (folder / "printed.txt").write_text(printed.getvalue())

    folder = once(tmp_path_factory, "ensemble-run", make)
    return finished_run(folder / "model.keras", demo_dir)
