"""Train a model on all records of a label file, with its figures from five patient-wise folds.

    python benchmarks/shipped.py --recipe large --labels F --data-dir D --output real_large.keras

It takes all flags of too_feature.py. The figures, and the temperature, are those of five models,
each of which has never seen the patients that it judges; the model that is written has seen all.
It takes as many training steps as a run of the script, on all records instead of a sample. Writes
the model, its card (.json) and its model card (.md).
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.class_weight import compute_sample_weight

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere
import too_feature as script
from benchmarks.folds import AMPLITUDES, matching
from ecg import files, metrics
from ecg.adaptation import split_model
from ecg.errors import exit_code
from ecg.output.model_card import UNLISTED, model_card
from ecg.output.read import read_results
from ecg.settings import Parser
from tools import check_labels

HOW = """**How it was trained.** By `benchmarks/shipped.py`, on all records named below; no patient
was kept for a test. The results are those of five models of the same recipe, each tested on a fifth
of the patients, which it had not seen.{note}
"""


# ----------------------------------------------------------------------------------------- records
def for_all(settings, labels):
    """Return settings by which training sees all records, in as many steps as it was to take.

    The last weights are kept: there are no validation patients to choose others by.
    """
    counts = labels["ecg_category"].value_counts()
    samples = int(counts.max()) * len(counts)
    share = settings.train_samples / samples
    epochs = max(1, round(settings.recipe.epochs * share))
    recipe = dataclasses.replace(
        settings.recipe, epochs=epochs, stop_patience=epochs, reduce_patience=epochs,
        keep_weights="last")
    return dataclasses.replace(settings, train_samples=samples, recipe=recipe)


def forget_amplitudes(records, patterns):
    """Return records without the mean and SD of lead II of those whose paths match a pattern."""
    is_unknown = matching(records.rows, patterns)
    features = records.features.copy()
    features[is_unknown, AMPLITUDES] = np.nan
    names = records.rows["waveform_path"][is_unknown].nunique()
    print(f"mean and SD of lead II of {names} records count as not measured")
    return records._replace(features=features)


# -------------------------------------------------------------------------------------------- folds
def regression_out_of_fold(records, n_classes, settings):
    """Return what the baseline says of each record, in the folds of `out_of_fold`."""
    folds = StratifiedGroupKFold(check_labels.FOLDS, shuffle=True, random_state=settings.seed)
    subjects = records.rows["subject_id"]
    found = np.zeros((len(records.targets), n_classes))
    for seen, unseen in folds.split(subjects, records.targets, subjects):
        baseline = script.fit_baseline(check_labels.pick(records, seen), n_classes, settings.recipe)
        found[unseen] = baseline.predict(records.features[unseen])
    return found


def judge(records, classes, settings):
    """Return the records, each once, judged out of fold; baseline's answers; temperature."""
    raw = check_labels.out_of_fold(records, len(classes), settings)
    baseline = regression_out_of_fold(records, len(classes), settings)
    once = np.flatnonzero(~records.rows["waveform_path"].duplicated())
    targets = records.targets[once]
    weights = compute_sample_weight("balanced", targets)
    temperature = metrics.fit_temperature(raw[once], targets, weights)
    softened = metrics.soften(raw[once], temperature)
    judged = script.Predicted(script.each_once(records), softened[None])
    return judged, baseline[once], temperature


def train_on_all(records, n_classes, settings, temperature):
    """Return a model trained on all records, with its logits divided by this temperature."""
    model, own, history = script.train(
        records, script.each_once(records), n_classes, settings)
    _, last = split_model(script.load_tensorflow()[1], model, settings.output)
    last.set_weights([array * own / temperature for array in last.get_weights()])
    return model, history


# --------------------------------------------------------------------------------------------- main
def write_model_card(settings, card, text, labels, judged, output, note):
    """Write the model card next to the model."""
    settings = dataclasses.replace(settings, figures=False)
    with tempfile.TemporaryDirectory() as folder:
        script.write_results(settings, Path(folder), card, text, {"train": labels}, judged)
        title, _, rest = model_card(read_results(folder)).partition("\n\n")
    how = HOW.format(note=f" {note}" if note else "")
    files.write_whole(
        output.with_suffix(".md"),
        lambda file: file.write_text(f"{title}\n\n{how}\n{rest}", encoding="utf-8"))


def run(own, others):
    """Measure in folds, train on all, and write model, card and model card."""
    settings = script.parse_settings(others)
    output = script.check_output(settings)
    labels = script.read_labels(settings.labels)
    is_demo = script.ensure_demo(labels, settings.data_dir)
    shares = script.print_classes(labels, is_demo)
    classes = shares.index.tolist()
    settings = for_all(settings, labels)
    card = script.describe_run(settings, labels, classes, is_demo)
    card |= script.state_origins(settings, is_demo, labels)
    for name in UNLISTED:    # places on this machine: not for a card that is passed on
        card["settings"].pop(name, None)

    records = script.load_split("train", labels, classes, settings)
    records = forget_amplitudes(records, own.no_amplitudes)
    judged, baseline, temperature = judge(records, classes, settings)
    model, history = train_on_all(records, len(classes), settings, temperature)
    text, found = script.evaluate(
        judged, judged, [temperature], classes, shares.to_numpy(), baseline, "")
    found["thresholds"] = dict.fromkeys(classes)    # nobody is left to choose them on
    card |= {"history": [history], "temperature": [temperature], "metrics": found,
             "left_out": records.left_out, "unusual": records.unusual}
    script.save(model, card, output)
    write_model_card(settings, card, text, labels, judged, output, own.note)
    for name in ("model", "logistic regression", "rate rule"):
        value, low, high = found[name]["balanced accuracy"]
        print(f"{name}: balanced accuracy in five folds {value:.3f} ({low:.3f} to {high:.3f})")
    print(f"saved {output}, with its card and model card")


def parse_arguments(arguments=None):
    """Return this program's own arguments, and a list of the others, which are the script's."""
    parser = Parser(
        __doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument(
        "--no-amplitudes", nargs="+", default=[], metavar="PATTERN",
        help="records that are not in mV: their mean and SD of lead II count as not measured")
    parser.add_argument("--note", default="", help="sentences on sources and limits for the card")
    return parser.parse_known_args(arguments)


def main(arguments=None):
    """Run from the command line; return the exit code."""
    own, others = parse_arguments(arguments)
    return exit_code("shipped.py", run, own, others, traceback="--traceback" in others)


if __name__ == "__main__":
    sys.exit(main())
