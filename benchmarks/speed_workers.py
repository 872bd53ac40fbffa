"""What `speed.py` measures in a process of its own, so that no measurement warms up another.

    python benchmarks/speed_workers.py NAME TASK

runs the worker NAME on TASK (JSON) and prints the number that it returns in the last line.
"""

import contextlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()    # before the imports, which count in a whole run

import numpy as np
import wfdb
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

import too_feature as script
from benchmarks import thesis

N_SINGLE = 300       # records prepared one by one
STEP_SAMPLES = 320   # training records, in batches of four
PATIENCE = 10_000    # epochs: no early stopping


# ---------------------------------------------------------------------------------------- records
def for_steps(task):
    """Return settings of the script for few and short epochs."""
    recipe = script.Recipe(epochs=3, freeze_bn_after=0)
    return script.Settings(train_samples=STEP_SAMPLES, recipe=recipe, cache_dir=task["scratch"])


def drawn(settings):
    """Return training records prepared by the script, and the number of classes."""
    labels = script.read_labels(settings.labels)
    classes = sorted(labels["ecg_category"].unique())
    part = script.split_patients(labels)["train"]
    return script.load_split("train", part, classes, settings), len(classes)


def arrays(settings):
    """Return signals, scaled features and targets as plain arrays, and the number of classes."""
    records, n_classes = drawn(settings)
    features = np.nan_to_num(StandardScaler().fit_transform(records.features))
    return records.signals[:], features, records.targets, n_classes


def prepare(task):
    """Return ms for one record, the median of many, by what the task names."""
    ways = {
        "script": script.prepare_record, "wfdb": wfdb.rdrecord, "thesis": thesis.prepare_record}
    folder = Path(script.Settings.data_dir)
    paths = [str(path.with_suffix("")) for path in sorted(folder.rglob("*.hea"))[:N_SINGLE]]
    for _ in range(2):    # the first time fills the system's file cache
        times = [time.perf_counter()]
        for path in paths:
            ways[task["of"]](path)
            times.append(time.perf_counter())
    return 1000 * float(np.median(np.diff(times)))


# ------------------------------------------------------------------------------------------ steps
class EpochTimes(io.StringIO):
    """A standard output that notes when the line of an epoch is written."""

    def __init__(self):
        super().__init__()
        self.times = []

    def write(self, text):
        """Note the time."""
        if text.startswith("epoch"):
            self.times.append(time.perf_counter())
        return len(text)


def per_step(times, steps):
    """Return ms of a step from the times at which epochs ended; the first compiled, and is out."""
    return 1000 * float(np.median(np.diff(times))) / steps


def step_script(task):
    """Time a step of the script's own `train`, with ten validation records only."""
    settings = for_steps(task)
    records, n_classes = drawn(settings)
    few = script.Records(*(field[:10] for field in records))
    with contextlib.redirect_stdout(EpochTimes()) as output:
        script.train(records, few, n_classes, settings)
    return per_step(output.times, len(records.targets) // settings.recipe.batch_size)


def step_keras(task):
    """Time a step of stock Keras on arrays."""
    settings = for_steps(task)
    signals, features, targets, n_classes = arrays(settings)
    recipe = settings.recipe
    _, keras = script.load_tensorflow()
    model = thesis.create_model(keras, n_classes)
    model.compile(
        keras.optimizers.Adam(recipe.learning_rate), "sparse_categorical_crossentropy",
        metrics=["accuracy"], jit_compile=task.get("xla", "auto"))
    times = []
    stamp = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()))
    model.fit((signals, features), targets, batch_size=recipe.batch_size, epochs=recipe.epochs,
              verbose=0, callbacks=[stamp])
    return per_step(times, len(targets) // recipe.batch_size)


def torch_model(torch, n_classes):
    """Build the same architecture in PyTorch; its LSTM has 128 more biases."""
    nn = torch.nn

    def dense(width, units, dropout):
        layers = (nn.Linear(width, units), nn.ReLU(), nn.BatchNorm1d(units), nn.Dropout(dropout))
        return nn.Sequential(*layers)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.2)
            self.lstm = nn.LSTM(12, 32, batch_first=True)
            self.ecg = dense(32, 24, 0.3)
            self.features = dense(8, 16, 0.2)
            self.last = nn.Sequential(dense(40, 32, 0.3), nn.Linear(32, n_classes))

        def forward(self, signals, features):
            # Keras drops a lead of a record for all of its time steps
            kept = self.drop(torch.ones(len(signals), 1, 12))
            _, (hidden, _) = self.lstm(signals * kept)
            both = [self.ecg(hidden[0]), self.features(features)]
            return self.last(torch.cat(both, dim=1))

    return Model()


def step_torch(task):
    """Time a step of PyTorch in a plain training loop."""
    settings = for_steps(task)
    *inputs, n_classes = arrays(settings)
    recipe = settings.recipe
    size = recipe.batch_size
    import torch

    torch.set_num_threads(task["threads"])
    signals, features, targets = map(torch.from_numpy, inputs)
    model = torch_model(torch, n_classes).train()
    adam = torch.optim.Adam(model.parameters(), recipe.learning_rate, fused=True)
    loss_of = torch.nn.functional.cross_entropy

    times = []
    for _ in range(recipe.epochs):
        order = torch.randperm(len(targets))
        whole = order[:len(order) // size * size]
        for batch in whole.split(size):
            adam.zero_grad()
            loss = loss_of(model(signals[batch], features[batch]), targets[batch])
            loss.backward()
            adam.step()
        times.append(time.perf_counter())
    return per_step(times, len(targets) // size)


# --------------------------------------------------------------------------------------- commands
def show_help(task):
    """Return the seconds that --help takes."""
    return run_command(["--help"])


def run_command(flags, until="\0"):
    """Run the script to its end, or to a line that begins with `until`; return the seconds."""
    command = [sys.executable, "-u", ROOT / "too_feature.py", *flags]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        for line in process.stdout:
            if line.startswith(until):
                process.terminate()
                return time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"too_feature.py failed with code {process.returncode}")
    return time.perf_counter() - start


def flags_of(task):
    """Return the script's flags for the task."""
    return ["--output", f"{task['scratch']}/model.keras", "--results", f"{task['scratch']}/results",
            "--cache-dir", task["scratch"], "--epochs", str(task["epochs"])]


def first_epoch(task):
    """Return the seconds to the end of the first epoch, where all records are in the cache."""
    run_command(flags_of(task), until="epoch")
    return run_command(flags_of(task), until="epoch")


def run_script(task):
    """Return the seconds of a whole run of the script, without early stopping or cache."""
    return run_command([*flags_of(task), "--no-cache", "--set", f"stop_patience={PATIENCE}"])


def run_thesis(task):
    """Return the seconds from label file to predictions for test records by the thesis's way.

    One process, one record at a time (none twice), Keras as it comes. Split and draw are the
    script's, so that the records are the same.
    """
    settings = script.Settings()
    _, keras = script.load_tensorflow()
    keras.utils.set_random_seed(settings.seed)
    splits = script.split_patients(script.read_labels(settings.labels))
    samples = settings.train_samples, settings.val_samples, settings.test_samples
    training, validation, test = (
        thesis_split(splits[name], n, settings, repeat=name == "train")
        for name, n in zip(script.SPLITS, samples, strict=True))

    signals, features, targets = training
    varied = script.lightweight_augmentation(signals, np.random.default_rng())
    model = thesis.create_model(keras, len(np.unique(targets)))
    thesis.train(keras, model, (varied, features, targets), validation, task["epochs"],
                 early_stopping=False)
    model.predict(test[:2], verbose=0)
    return time.perf_counter() - BEGAN


def thesis_split(rows, samples, settings, repeat):
    """Draw the records of one split and prepare them; return signals, features and targets."""
    rows = script.balanced_sampling(rows, samples, settings.seed, repeat)
    prepared = {path: thesis.prepare_record(f"{settings.data_dir}/{path}")
                for path in rows["waveform_path"].unique()}
    signals, features = zip(*(prepared[path] for path in rows["waveform_path"]), strict=True)
    _, targets = np.unique(rows["ecg_category"], return_inverse=True)
    return np.stack(signals), np.stack(features), targets


# ------------------------------------------------------------------------------------------- main
WORKERS = {worker.__name__: worker for worker in (
    show_help, first_epoch, step_script, step_keras, step_torch, prepare, run_script,
    run_thesis)}


def main():
    """Run one worker."""
    _, name, task = sys.argv
    with contextlib.redirect_stdout(sys.stderr):
        answer = WORKERS[name](json.loads(task))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
