"""The page index.html of a results folder: its pictures are inside it, and no script runs.

Nothing is fetched, so it works from a mail attachment, but for the link to MODEL_CARD.md beside it.
"""

import base64
import html

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from ecg import cohort, intervals, origin, rate_step
from ecg.errors import printable
from ecg.output import ecg_page, style
from ecg.output import model_card as tables
from ecg.output.model_card import listed_settings
from ecg.output.read import Results, feature_column, probability_column, read_texts

DPI = 100            # of ECGs: 1,169 pixels wide
PICTURES = {         # heading and what can be seen, by file name
    "training_curves": ("Training", "Loss, accuracy and learning rate by epoch."),
    "roc_precision_recall": ("Each class against the rest", "ROC and precision-recall curves."),
    "reliability": ("Calibration", "How often the model is right, by how sure it is."),
    "features": ("Features", "Features by true class."),
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1200px;
  padding: 0 16px 64px; }
h1 { font-size: 1.6em; } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }

nav a { margin-right: 1em; white-space: nowrap; }
a { color: #0072B2; }
img { max-width: 100%; height: auto; border: 1px solid #eee; }
figure { margin: 1em 0; overflow-x: auto; }
figure.broad img { max-width: none; width: max(100%, 720px); box-sizing: border-box; }

.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 4px 10px; border: 1px solid #ddd; text-align: right; vertical-align: top; }
td:not(:first-child) { white-space: nowrap; }
th:first-child, td:first-child, .confusion th { text-align: left; }
td:first-child { min-width: 7em; }
.confusion td { text-align: center; } .confusion a { color: inherit; display: block; }

.notice { background: #FFF4DA; padding: 8px 12px; border-left: 4px solid #E69F00; }
.headline { font-size: 1.25em; }
.records { display: none; background: #F3F8FB; padding: 4px 12px; }
.records:target { display: block; }
h1, .path, .records td:first-child { overflow-wrap: anywhere; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">

<title>ECG classifier {name}</title>
<style>{style}</style>
</head>

<body>
<h1>ECG classifier {name}</h1>
<p class="headline">Balanced accuracy <b>{balanced_accuracy}</b> on {metrics[records]} records of
{metrics[patients]} patients{unseen} (95 % interval over patients).</p>
<p class="notice">{notice}</p>
{accuracies}
{overall}
<nav><a href="#confusion">Confusion matrix</a> <a href="#classes">Classes</a>
<a href="#groups">Groups</a> <a href="#errors">Errors</a> <a href="#pictures">Pictures</a>
<a href="#examples">Examples</a> <a href="#cohort">Patients and records</a>
<a href="#settings">Settings and versions</a>
<a href="MODEL_CARD.md">Model card</a></nav>

<h2 id="confusion">Confusion matrix</h2>
<p>Rows: labels; columns: predictions, with shares of the label. A click on a cell lists its
records.</p>
{confusion}

<h2 id="classes">Classes</h2>
{classes}
<p>{intervals}</p>
{at_prevalence}
{thresholds}
<p>Decision threshold at 95 % sensitivity: 95 % of the class's validation records have at least this
probability; sensitivity and specificity are those on test patients. –: too few records.</p>
<p>{rate_step}.</p>

<h2 id="groups">Groups of patients</h2>
<p>{cohort.EXPLORATORY} Groups are columns of the label file, such as age and sex.</p>
{groups}

<h2 id="errors">Errors</h2>
<p>{n_wrong} of {metrics[records]} test records were classified otherwise than labelled. Shown are
the {n_errors} most confident: either the model is wrong, or the label.</p>
{errors}

<h2 id="pictures">Pictures</h2>
{pictures}

<h2 id="examples">Examples</h2>
{examples}

<h2 id="cohort">Patients and records</h2>
<p>The records that were used, each once, and their patients.</p>
{table1}
<p>What became of each row of the label file:</p>
<ul>{flow}</ul>

<h2 id="settings">Settings and versions</h2>
<details><summary>{n_settings} settings</summary>{settings}</details>
{versions}
<p>What the model takes and gives, its data and its limits: <a href="MODEL_CARD.md">model card</a>.
{not_medical} {sources}</p>
</body>
</html>
"""


# ------------------------------------------------------------------------------------------ HTML
def safe(text: object) -> str:
    """Return text as HTML that shows it: nothing in it is taken for markup."""
    return html.escape(printable(text))


def html_table(frame: pd.DataFrame) -> str:
    """Return a table of cells that are HTML."""
    with pd.option_context("display.max_colwidth", None):
        cells = frame.to_html(index=False, border=0, escape=False)
    return f'<div class="wide">{cells}</div>'


def table(frame: pd.DataFrame) -> str:
    """Return a table of cells that are text."""
    return html_table(frame.map(safe).rename(columns=safe))


def picture(content: bytes, words: str, broad: bool = True) -> str:
    """Return a PNG inside the page; `words` are HTML.

    On a small screen a broad one is not shrunk until nothing can be read, but can be scrolled.
    """
    data = base64.b64encode(content).decode()
    kind = ' class="broad"' if broad else ""
    return f'<figure{kind}><img src="data:image/png;base64,{data}" alt="{words}"></figure>'


def ecg_picture(results: Results, row: int, words: str) -> str:
    """Return the ECG of a test record as a picture inside the page."""
    return picture(style.as_png(ecg_page.draw_tested(results, row), DPI), words)


# ------------------------------------------------------------------------------- confusion matrix
def _records(results, i, j):
    """Return the records of a cell, shown when the cell is clicked."""
    column = probability_column(results.classes[j])
    own = results.table[(results.true == i) & (results.predicted == j)]
    own = own.sort_values(column, ascending=False, kind="stable")
    cells = own[["record", "subject_id"]].map(safe)
    for row in own.index.intersection(results.errors):
        number = results.errors.index(row) + 1
        cells.loc[row, "record"] = f'<a href="#error-{number}">{cells.loc[row, "record"]}</a>'
    cells["probability"] = own[column].map("{:.3f}".format)

    label, predicted = safe(results.classes[i]), safe(results.classes[j])
    heading = f"Label {label}, predicted {predicted}: {len(own)} records"
    return (f'<div class="records" id="cell-{i}-{j}"><h3>{heading}</h3>'
            f"{html_table(cells.rename(columns={'subject_id': 'patient'}))}</div>")


def _confusion(results):
    """Return the confusion matrix, whose cells lead to their records, and these."""
    names = [f"<th>{safe(name)}</th>" for name in results.classes]
    counts = confusion_matrix(results.true, results.predicted, labels=range(len(names)))
    rows = [["<th></th>", *names]]
    lists = []
    for i, name in enumerate(names):
        rows.append([name])
        n_labelled = counts[i].sum()
        for j, n in enumerate(counts[i]):
            share = n / max(1, n_labelled)
            words = f"{n}<br>{share:.0%}" if n_labelled else "0<br>–"
            if n:
                words = f'<a href="#cell-{i}-{j}">{words}</a>'
                lists.append(_records(results, i, j))
            colour = f"rgba(0, 114, 178, {0.75 * share:.2f})"
            rows[-1].append(f'<td style="background: {colour}">{words}</td>')

    lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="confusion">{lines}</table></div>' + "\n".join(lists)


# ------------------------------------------------------------------------------------------ ECGs
def _out_of_range(results, row):
    """Return the features of a record that are out of their reference range."""
    words = []
    for name, unit, reference in results.run["features"]:
        low, high = reference or (-np.inf, np.inf)
        value = results.table[feature_column(name, unit)].iloc[row]
        if reference and not low <= value <= high:
            measured = f"{value:.3g}" if np.isfinite(value) else "not measurable"
            words.append(f"{name} {measured} ({low:g}–{high:g} {unit}".strip() + ")")
    return safe(", ".join(words) or "none")


def _error(results, number, row):
    """Return what is known of one wrongly classified record."""
    names = [safe(name) for name in results.classes]
    p = results.probabilities[row]
    record, subject = results.table[["record", "subject_id"]].iloc[row].map(safe)
    label, predicted = names[results.true[row]], names[results.predicted[row]]
    probabilities = ", ".join(f"{names[i]} {p[i]:.3f}" for i in np.argsort(-p, kind="stable"))
    return f"""<article id="error-{number}">
<h3>{number}. Label {label}, predicted {predicted} ({p.max():.3f})</h3>
<p class="path">Record {record}, patient {subject}<br>Probabilities: {probabilities}<br>
Out of the reference range: {_out_of_range(results, row)}</p>
{ecg_picture(results, row, f"ECG of {record}")}</article>"""


def _examples(results):
    """Return the example of each class that the test has."""
    parts = []
    for row in results.examples:
        words = f"{safe(results.table['true'].iloc[row])}: a typical record."
        parts.append(f"<p>{words}</p>{ecg_picture(results, row, words)}")
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------ page
def _pictures(results):
    """Return the figures; only training curves may not have been drawn."""
    parts = []
    for name, (heading, words) in PICTURES.items():
        path = results.folder / "figures" / f"{name}.png"
        shown = "<p>No epoch was trained.</p>"
        if path.exists():
            shown = picture(path.read_bytes(), words, broad=name != "reliability")
        parts.append(f"<h3>{heading}</h3><p>{words}</p>{shown}")
    return "\n".join(parts)


def page(results: Results) -> str:
    """Return index.html of a results folder, from its files alone, after its figures."""
    run, metrics = results.run, results.metrics
    errors = [_error(results, number, row) for number, row in enumerate(results.errors, start=1)]
    scores = tables.accuracies(metrics)
    common = tables.at_prevalence(metrics)
    label_error = origin.label_error(run)
    settings = pd.DataFrame(listed_settings(run).items(), columns=["setting", "value"])
    versions = pd.DataFrame(run["versions"].items(), columns=["package", "version"])

    return PAGE.format(
        name=safe(results.folder.resolve().name),
        style=STYLE,
        balanced_accuracy=scores["balanced accuracy"][0],
        metrics=metrics,
        unseen=origin.unseen(run, run["recipe"]["epochs"] != 0),
        notice=safe(" ".join(filter(None, [
            origin.caution(run), origin.note(run, is_tested=True), label_error]))),
        accuracies=table(scores),
        confusion=_confusion(results),
        overall=table(tables.overall(metrics)),
        classes=table(tables.scores_by_class(metrics)),
        intervals=intervals.IN_WORDS,
        at_prevalence=f"<p>{tables.EVENLY}</p>{table(common)}" if len(common) else "",
        thresholds=table(tables.thresholds(metrics)),
        groups=table(cohort.group_table(metrics["groups"])),
        cohort=cohort,
        rate_step=rate_step.of_card(run).in_words(),

        n_wrong=np.sum(results.true != results.predicted),
        n_errors=len(errors),
        errors="\n".join(errors),
        pictures=_pictures(results),
        examples=_examples(results),
        table1=table(read_texts(results.folder / "table1.csv")),
        flow="".join(f"<li>{safe(line)}</li>" for line in run["flow"]),
        n_settings=len(settings),
        settings=table(settings),
        versions=table(versions),
        not_medical=origin.NOT_MEDICAL,
        sources=origin.SOURCES if label_error else "",
    )
