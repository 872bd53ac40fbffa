"""Tables of the benchmarks, in markdown."""

import numpy as np

from benchmarks.runs import TRIALS, ensemble
from benchmarks.scores import (
    ENOUGH,
    RESAMPLES,
    SHARES_KEPT,
    Scorer,
    accuracy_kept,
    calibrations,
    difference,
    interval,
    mean_deviation,
    versus,
)
from benchmarks.systems import OURS
from ecg.output.model_card import markdown_table

REFERENCES = "regression", "default"    # systems that all others are compared with
MAX_HOSPITALS = 12    # more folders than these are patients', not hospitals'


# ------------------------------------------------------------------------------------- all systems
def protocol_tables(results, pool, protocol, folds, options, skipped):
    """Return all tables of one protocol.

    Parameters
    ----------
    results : dict of Result
        By the name of the system.
    pool : Pool
    protocol : str
    folds : list of Fold
    options : argparse.Namespace
        Of `accuracy.py`.
    skipped : dict of str
        Why a system was not trained, by its name.
    """
    scorer = scorer_of(pool, folds)
    test = np.concatenate([fold.test for fold in folds])
    if options.seeds > 1:
        averaged = {f"{name} ensemble": ensemble(results[name]) for name in OURS if name in results}
        results = results | averaged

    train = np.concatenate([fold.train for fold in folds])
    counts = np.bincount(pool.targets[train], minlength=len(pool.classes))
    parts = [
        f"### {sentence(protocol)}\n",
        main_table(results, pool.classes, scorer),
        notes(results, pool.classes, scorer, options, skipped),
        hospital_table(results, pool, test),
        trust_table(results, scorer, counts / len(train))]
    return "\n".join(part for part in parts if part)


def sentence(text):
    """Return a text with a capital at its start."""
    return text[:1].upper() + text[1:]


def scorer_of(pool, folds):
    """Return the scorer of all records that these folds test on."""
    test = np.concatenate([fold.test for fold in folds])
    subjects = pool.rows["subject_id"].to_numpy()[test]
    return Scorer(pool.targets[test], subjects, len(pool.classes))


def main_table(results, classes, scorer):
    """Return the table of all systems, each compared with the references."""
    balanced = {name: scorer.balanced(result.predicted) for name, result in results.items()}
    references = [name for name in REFERENCES if name in results]

    header = ["system", "balanced accuracy (95 %)", "over all classes", "macro F1"]
    header += [f"{name} ({n})" for name, n in zip(classes, scorer.count, strict=True)]
    header += ["training s", "parameters"]
    header += [less(results[name]) for name in references]

    rows = []
    for name, result in results.items():
        row = [result.title, *score_cells(result.predicted, balanced[name], scorer)]
        row += [f"{result.seconds:.0f}", f"{result.parameters:,}"]
        for other in references:
            row.append("" if other == name else versus(balanced[name], balanced[other]))
        rows.append(row)
    return markdown_table(header, rows)


def less(reference):
    """Return the header of a column of differences from a result."""
    return f"less {reference.title.strip('*')} (95 %)"


def score_cells(predicted, balanced, scorer):
    """Return a system's cells of the main table, up to the recall of each class."""
    averaged = mean_deviation(scorer.of_seeds(predicted))
    of_all = mean_deviation(scorer.of_seeds(predicted, scorer.occurring))
    recalls = scorer.recall(predicted)[0]
    return [f"{averaged} ({interval(balanced[1:])})", of_all, f"{scorer.macro_f1(predicted):.3f}",
            *("" if np.isnan(recall) else f"{recall:.2f}" for recall in recalls)]


def notes(results, classes, scorer, options, skipped):
    """Return what a reader of the main table needs to know."""
    averaged = ", ".join(classes[k] for k in scorer.averaged)
    candidates = 1 if options.quick else TRIALS
    chosen = [f"{result.title} {result.chosen}" for result in results.values() if result.chosen]

    lines = [
        "",
        f"{len(scorer.targets)} test records of {scorer.n_patients} patients; columns of classes: "
        f"recall (test records). {seeds_of(options)}: mean ± standard deviation.",
        f"Averaged over: {averaged} (classes with {ENOUGH} test records or more, all if there is "
        "none).",
        f"Intervals: bootstrap over patients, {RESAMPLES} resamples, of the recall averaged over "
        "seeds; differences on the same resamples. \"beats\": the interval of the difference "
        "excludes 0.",

        f"Baselines: {candidates} candidate settings each, chosen on the validation patients of "
        f"the first fold and seed: {'; '.join(chosen) or 'none'}. The thesis recipe is fixed; ours "
        "are as shipped, without a choice here (their settings were chosen in development).",
        "Regression, forest and MiniRocket train on all training records with class weights; the "
        "networks on "
        "a balanced draw of them. Parameters: of a forest, its nodes. Seconds: wall clock of one "
        "training."]
    lines += warning(options, "systems")
    lines += [f"Skipped: {name} ({why})." for name, why in skipped.items()]
    return "\n".join(lines) + "\n"


def seeds_of(options):
    """Return in words how often each system was trained."""
    seeds = f"{options.seeds} seed(s)"
    if options.baseline_seeds != options.seeds:
        seeds += f", baselines {options.baseline_seeds}"
    return seeds


def warning(options, what):
    """Return a line that says that trainings were cut short, if they were."""
    if options.quick:
        return [f"**--quick: one trial, few epochs. These are not the {what}' results.**"]
    if options.epochs:
        return [f"**--epochs {options.epochs}: these are not the {what}' results.**"]
    return []


def hospital_table(results, pool, test):
    """Return balanced accuracy by hospital, the second folder of the paths; '' for only one."""
    folders = pool.rows["waveform_path"].iloc[test].str.split("/").str[1]
    folders = folders.fillna("").to_numpy()
    names = sorted(set(folders))
    if not 1 < len(names) <= MAX_HOSPITALS:
        return ""

    subjects = pool.rows["subject_id"].to_numpy()[test]
    header = ["balanced accuracy"]
    rows = [[result.title] for result in results.values()]
    for name in names:
        here = folders == name
        scorer = Scorer(pool.targets[test[here]], subjects[here], len(pool.classes))
        header.append(f"{name} ({averaged_classes(scorer, pool.classes)})")
        for row, result in zip(rows, results.values(), strict=True):
            row.append(mean_deviation(scorer.of_seeds(result.predicted[:, here])))
    return markdown_table(header, rows) + "\n"


def averaged_classes(scorer, classes):
    """Return the classes that a scorer averages over, with their test records."""
    return ", ".join(f"{classes[k]} {scorer.count[k]}" for k in scorer.averaged)


def trust_table(results, scorer, shares):
    """Return how far the probabilities of our systems can be trusted; '' without ours.

    Parameters
    ----------
    results : dict of Result
    scorer : Scorer
    shares : ndarray (n_classes,)
        Of the classes in the label file, to which the test records are also reweighted.
    """
    natural = (shares / scorer.count.clip(1))[scorer.targets]
    header = ["mean of the seeds", "ECE before, after", "Brier before, after",
              "ECE before, after at prevalence", "Brier before, after at prevalence"]
    header += [f"accuracy, {share:.0%} kept" for share in SHARES_KEPT]

    rows = []
    for name, result in results.items():
        if name.split()[0] not in OURS:    # an ensemble's name starts with that of its system
            continue
        row = [result.title]
        for weights in (None, natural):
            before = calibrations(result.before, scorer.targets, weights)
            after = calibrations(result.probabilities, scorer.targets, weights)
            row += [f"{a:.3f}, {b:.3f}" for a, b in zip(before, after, strict=True)]
        kept = [accuracy_kept(p, scorer.targets) for p in result.probabilities]
        row += [f"{share:.3f}" for share in np.mean(kept, axis=0)]
        rows.append(row)
    return markdown_table(header, rows) + "\n" if rows else ""


# ---------------------------------------------------------------------------------- learning curve
def curve_tables(results, pool, protocol, folds, options):
    """Return balanced accuracy by the number of records, and each system less the regression.

    Parameters
    ----------
    results : dict of dict of Result
        By the name of the system, then by the number of records; an interrupted run lacks some.
    pool : Pool
    protocol : str
    folds : list of Fold
    options : argparse.Namespace
        Of `accuracy.py`.
    """
    scorer = scorer_of(pool, folds)
    sizes = sorted({size for by_size in results.values() for size in by_size})
    header = [f"{size:,} records" for size in sizes]
    titles = {name: next(iter(by_size.values())).title for name, by_size in results.items()}
    balanced = {name: {size: scorer.balanced(result.predicted) for size, result in by_size.items()}
                for name, by_size in results.items()}

    scores = [[titles[name], *(curve_cell(by_size.get(size), scorer) for size in sizes)]
              for name, by_size in results.items()]
    lines = [f"### {curve_title(protocol)}", "", markdown_table(["system", *header], scores), ""]
    if REFERENCES[0] in results:
        reference = balanced[REFERENCES[0]]
        first = f"less {titles[REFERENCES[0]]} (95 %)"
        rows = [[titles[name], *(versus(by_size[size], reference[size])
                                 if size in by_size and size in reference else ""
                                 for size in sizes)]
                for name, by_size in balanced.items() if name != REFERENCES[0]]
        lines += [markdown_table([first, *header], rows), ""]

    lines += [
        f"Balanced accuracy over {averaged_classes(scorer, pool.classes)} (test records, the same "
        f"at each size): mean ± standard deviation of {seeds_of(options)}, each of which draws "
        "other patients to learn from; intervals are a bootstrap over test patients, "
        f"{RESAMPLES} resamples, paired for the differences.",
        "Records: those to learn from, some 15 % of them for validation. The smaller sets are part "
        "of the larger ones."]
    return "\n".join(lines + warning(options, "systems")) + "\n"


def curve_title(protocol):
    """Return the heading of a protocol's learning curve."""
    return f"Learning curve, {protocol}"


def curve_cell(result, scorer):
    """Return mean, deviation and interval of a result; '' where there is none."""
    if result is None:
        return ""
    balanced = scorer.balanced(result.predicted)
    return f"{mean_deviation(scorer.of_seeds(result.predicted))} ({interval(balanced[1:])})"


# --------------------------------------------------------------------------------------- ablation
ABLATION = "What each change of the default gains"


def ablation_table(results, pool, protocols, options):
    """Return what each step of the ablation gains over the one before.

    Parameters
    ----------
    results : dict of dict of Result
        By the title of the step, then by the protocol; an interrupted run lacks some.
    pool : Pool
    protocols : dict of list of Fold
    options : argparse.Namespace
        Of `accuracy.py`.
    """
    header = ["cumulative change"]
    rows = [[title] for title in results]
    averaged = []
    for protocol, folds in protocols.items():
        scorer = scorer_of(pool, folds)
        measured = [of[protocol].predicted if protocol in of else None for of in results.values()]

        header += [f"{protocol}: balanced accuracy", "gain (95 %)", "over all classes"]
        averaged.append(f"{protocol}: {averaged_classes(scorer, pool.classes)}")
        for row, cells in zip(rows, step_cells(measured, scorer), strict=True):
            row += cells

    lines = [
        f"### {ABLATION}", "", markdown_table(header, rows), "",
        f"{options.seeds} seed(s): mean ± standard deviation. Averaged over (test records): "
        f"{'; '.join(averaged)}.",
        f"Gains: paired bootstrap over patients, {RESAMPLES} resamples, of the recall averaged "
        "over seeds."]
    lines += warning(options, "steps")
    return "\n".join(lines) + "\n"


def step_cells(measured, scorer):
    """Return three cells for each step: its score, its gain, and its score over all classes."""
    cells = []
    before = None
    for predicted in measured:
        if predicted is None:    # interrupted
            cells.append(["", "", ""])
            before = None
            continue
        balanced = scorer.balanced(predicted)
        gain = "" if before is None else str(difference(balanced, before))
        cells.append([mean_deviation(scorer.of_seeds(predicted)), gain,
                      mean_deviation(scorer.of_seeds(predicted, scorer.occurring))])
        before = balanced
    return cells
