"""Where a run writes its model and its results, checked before any work."""

import contextlib
from pathlib import Path
from typing import Any

from ecg import adaptation, files, models
from ecg.errors import UserError

MODEL_FILES = ".keras", ".json", ".json.new"    # the last while model and card are written


def check_output(settings: Any) -> tuple[Path, Path]:
    """Return the model to write and its results folder; say which model is replaced.

    For the script's `Settings`.

    Raises
    ------
    UserError
        Something could not be written, or is read as well.
    """
    output = Path(settings.output)
    if output.suffix != ".keras":
        raise UserError(f"--output {settings.output:.99}: expected a .keras file")
    folder = files.results_folder(settings.results, output)

    inputs = [Path(name) for name in (settings.labels, settings.test_labels) if name]
    inputs += [name.with_suffix(".labels.json") for name in inputs]
    if settings.start_from:
        start = Path(adaptation.find_model(settings.start_from))
        inputs += [start, start.with_suffix(".json")]
    for target in map(output.with_suffix, MODEL_FILES):
        files.check_target(target, inputs)
    for name in inputs:
        if folder.resolve() in name.resolve().parents:
            raise UserError(f"{name} lies in the results folder of --output {output}, whose files "
                            "are replaced; choose another name")

    if output.exists():
        was = "of which nothing is known"
        with contextlib.suppress(Exception):    # of another version, or damaged
            tested = models.read_card(output)["metrics"]
            was = (f"which reached balanced accuracy {tested['model']['balanced accuracy'][0]:.3f} "
                   f"on {tested['patients']} test patients")
        print(f"this run replaces {output}, {was}")
    return output, folder
