"""Two finished runs that the tests of this folder look at."""

import contextlib
import io
import os
import shutil
from typing import NamedTuple

import pytest

import too_feature as script
from ecg import demo
from tests.support.runs import LABELS, TINY, card_of, copy_project, once, run_script


class Run(NamedTuple):
    """A finished run."""

    model: object        # Path of the .keras file
    card: dict
    printed: str
    data_dir: object     # Path


@pytest.fixture(scope="session")
def demo_run(demo_dir, tmp_path_factory):
    """A tiny run in a fresh copy of the project, where some waveforms of the demo are missing."""
    def make(folder):
        program = copy_project(folder)
        data = folder / "mimic-iv-ecg"
        shutil.copytree(demo_dir, data, copy_function=os.link)
        for record in demo.catalogue()[::100]:
            (data / f"{record.waveform_path}.hea").unlink()
            (data / f"{record.waveform_path}.dat").unlink()
        result = run_script(folder, "--output", "model.keras", *TINY, program=program.name)
        assert result.returncode == 0, result.stderr
        (folder / "printed.txt").write_text(result.stdout)

    folder = once(tmp_path_factory, "demo-run", make)
    return Run(folder / "model.keras", card_of(folder / "model.keras"),
               (folder / "printed.txt").read_text(), folder / "mimic-iv-ecg")


@pytest.fixture(scope="session")
def ensemble_run(demo_dir, tmp_path_factory):
    """A tiny ensemble by the thesis recipe, which prepares records in another way."""
    def make(folder):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = script.main([
                "--labels", str(LABELS), "--data-dir", str(demo_dir), "--output",
                str(folder / "model.keras"), "--results", str(folder / "results"), *TINY,
                "--no-cache", "--recipe", "thesis", "--repeats", "2", "--sequence-length", "100"])
        assert code == 0
        (folder / "printed.txt").write_text(printed.getvalue())

    folder = once(tmp_path_factory, "ensemble-run", make)
    return Run(folder / "model.keras", card_of(folder / "model.keras"),
               (folder / "printed.txt").read_text(), demo_dir)


@pytest.fixture(params=["demo_run", "ensemble_run"])
def any_run(request):
    """Each of the two finished runs."""
    return request.getfixturevalue(request.param)
