"""Train a model on all records of a label file, with its figures from five patient-wise folds.

    python benchmarks/shipped.py --recipe large --labels F --data-dir D --output real_large.keras

It takes all flags of too_feature.py. The figures, and the temperature, are those of five models,
each of which has never seen the patients that it judges; the model that is written has seen all.
It takes as many training steps as a run of the script, on all records instead of a sample. Writes
the model, its card (.json), its model card (.md) and its .trained.npz: 128 bytes for each recording
that it has learnt from, by which a run notices that it tests the model on them.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # to run from anywhere
import too_feature as script
from benchmarks.folds import AMPLITUDES, matching
from ecg import adaptation, cohort, files, metrics, origin, recordings, report
from ecg.errors import exit_code
from ecg.output.model_card import UNLISTED, model_card
from ecg.output.read import read_results
from ecg.settings import Parser
from tools import check_labels

HOW = """**How it was trained.** By `benchmarks/shipped.py`, on all records named below; no patient
was kept for a test. The results are those of five models of the same recipe, each tested on a fifth
of the patients, which it had not seen. {note}
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
    return records._replace(features=features)


# ------------------------------------------------------------------------------------------- folds
def baseline_out_of_fold(records, n_classes, settings):
    """Return the baseline's probabilities of each record, in the folds of `out_of_fold`."""
    probabilities = np.zeros((len(records.targets), n_classes))
    for seen, unseen in check_labels.folds(records, settings.seed):
        seen = adaptation.pick(records, seen)
        baseline = script.fit_baseline(seen, n_classes, settings.recipe)
        probabilities[unseen] = baseline.predict(records.features[unseen])
    return probabilities


def judge(records, n_classes, settings):
    """Judge each record, once, by a model that never saw its patient.

    Returns
    -------
    tested : script.Predicted
    baseline : ndarray (n, n_classes)
        Probabilities of the baseline.
    temperature : float
        Fitted on these records, and applied to them.
    """
    raw = check_labels.out_of_fold(records, n_classes, settings)
    baseline = baseline_out_of_fold(records, n_classes, settings)
    once = ~records.rows["waveform_path"].duplicated().to_numpy()
    targets = records.targets[once]
    weights = compute_sample_weight("balanced", targets)
    temperature = metrics.fit_temperature(raw[once], targets, weights)
    softened = metrics.soften(raw[once], temperature)
    tested = script.Predicted(adaptation.each_once(records), softened[None])
    return tested, baseline[once], temperature


# -------------------------------------------------------------------------------------------- main
def run(own, others):
    """Measure in folds, train on all, and write model, card and model card."""
    settings = script.parse_settings(others)
    output, _ = script.check_output(settings)
    labels = script.read_labels(settings.labels)
    is_demo = script.ensure_demo(labels, settings.data_dir)
    prevalence = report.print_classes(labels, is_demo)
    classes = prevalence.index.tolist()
    settings = for_all(settings, labels)
    card = script.describe_run(
        settings, labels, classes, script.LEADS, script.feature_names(settings.recipe), is_demo)
    card |= origin.of_run(settings, is_demo, labels)
    for name in UNLISTED:    # places on this machine: not for a card that is passed on
        card["settings"].pop(name, None)

    records = script.load_split("train", labels, classes, settings)
    known = recordings.as_known(adaptation.each_once(records).signals)
    files.write_bytes(recordings.known_file(output), files.npz(recordings=known))

    records = forget_amplitudes(records, own.no_amplitudes)
    tested, baseline, temperature = judge(records, len(classes), settings)
    step = script.choose_rate_step(records, classes, settings)
    card["rate_limits"] = step.limits
    tested = tested._replace(step=step)
    model, own_temperature, history = script.train(
        records, adaptation.each_once(records), len(classes), settings)
    last = model.layers[-1]
    last.set_weights([array * own_temperature / temperature for array in last.get_weights()])
    text, figures = script.evaluate(
        tested, tested, [temperature], classes, prevalence.to_numpy(), baseline, "")
    figures["thresholds"] = dict.fromkeys(classes)    # nobody is left to choose them on

    card |= {"history": [history], "temperature": [temperature], "metrics": figures,
             "left_out": records.left_out, "unusual": records.unusual}
    script.save(model, {**card, "unusual": []}, output)    # whose paths nobody else has
    split = cohort.join({"train": labels}, {"train": records})
    write_model_card(settings, card, text, split, tested, output, own.note)
    for name in ("model", "logistic regression", "rate rule"):
        value, low, high = figures[name]["balanced accuracy"]
        print(f"{name}: balanced accuracy in five folds {value:.3f} ({low:.3f} to {high:.3f})")
    print(f"saved {output}, with its card and model card")


def write_model_card(settings, card, text, split, tested, output, note):
    """Write the model card next to the model."""
    settings = dataclasses.replace(settings, figures=False)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / output.stem    # whose name the card takes
        script.write_results(settings, folder, card, text, split, tested)
        title, _, rest = model_card(read_results(folder)).partition("\n\n")
    how = f"{title}\n\n{HOW.format(note=note)}\n{rest}"
    files.write_bytes(output.with_suffix(".md"), how.encode())


def main(arguments=None):
    """Run from the command line; return the exit code."""
    parser = Parser(__doc__, epilog="All flags of too_feature.py are taken too.")
    parser.add_argument(
        "--no-amplitudes", nargs="+", default=[], metavar="PATTERN",
        help="records that are not in mV: their mean and SD of lead II count as not measured")
    parser.add_argument("--note", default="", help="sentences on sources and limits for the card")
    own, others = parser.parse_known_args(arguments)
    return exit_code("shipped.py", run, own, others, traceback="--traceback" in others)


if __name__ == "__main__":
    sys.exit(main())
