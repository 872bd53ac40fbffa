"""What `speed.py` measures in a process of its own, so that no measurement warms up another.

    python benchmarks/speed_workers.py NAME TASK

runs the worker NAME on TASK (JSON) and prints what it returns as JSON, in the last line.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

import too_feature as script
from benchmarks import thesis
from benchmarks.common import log

PREDICTION_BATCH = 100


# --------------------------------------------------------------------------------------- records
def settings_of(task):
    """Return the script's settings for a task."""
    recipe = script.Recipe(**task.get("recipe", {}))
    return script.Settings(**task["settings"], recipe=recipe)


def drawn(task):
    """Return training records prepared by the script, the seconds it took, and the classes."""
    settings = settings_of(task)
    labels = script.read_labels(settings.labels)
    classes = sorted(labels["ecg_category"].unique())
    part = script.split_patients(labels)["train"]

    start = time.perf_counter()
    records = script.load_split("train", part, classes, settings)
    return records, time.perf_counter() - start, classes


def arrays(task):
    """Return signals, scaled features and targets as plain arrays, and the number of classes."""
    records, _, classes = drawn(task)
    features = np.asarray(records.features, float)
    features -= np.nanmean(features, axis=0)
    features /= np.nanstd(features, axis=0) + 1e-9

    signals = np.ascontiguousarray(records.signals[:])
    features = np.nan_to_num(features).astype(np.float32)
    return signals, features, np.asarray(records.targets, np.int64), len(classes)


def load(task):
    """Count records per second of the script's `load_split`."""
    records, seconds, _ = drawn(task)
    return records.rows["waveform_path"].nunique() / seconds


# ----------------------------------------------------------------------------------------- steps
class EpochTimes:
    """A standard output that notes when the line of an epoch is written."""

    def __init__(self):
        self.times = []

    def write(self, text):
        """Write to standard error instead."""
        if text.startswith("epoch"):
            self.times.append(time.perf_counter())
        return sys.stderr.write(text)

    def flush(self):
        """Flush standard error."""
        sys.stderr.flush()


def per_step(times, steps):
    """Return ms of a step from the times at which epochs ended; the first compiled, and is out."""
    return 1000 * float(np.median(np.diff(times))) / steps


def step_script(task):
    """Time a step of the script's own `train`, with ten validation records only."""
    records, _, classes = drawn(task)
    settings = settings_of(task)
    few = script.Records(*(field[:10] for field in records))
    with contextlib.redirect_stdout(EpochTimes()) as output:
        script.train(records, few, len(classes), settings)
    return per_step(output.times, len(records.targets) // settings.recipe.batch_size)


def step_keras(task):
    """Time a step of stock Keras on arrays, on the backend that the environment names."""
    signals, features, targets, n_classes = arrays(task)
    recipe = settings_of(task).recipe
    import keras

    if task.get("threads"):
        import tensorflow as tf
        tf.config.threading.set_intra_op_parallelism_threads(task["threads"])

    model = thesis.create_model(keras, n_classes)
    model.compile(keras.optimizers.Adam(recipe.learning_rate), "sparse_categorical_crossentropy",
                  metrics=["accuracy"], **task.get("compile", {}))
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
    *inputs, n_classes = arrays(task)
    recipe = settings_of(task).recipe
    size = recipe.batch_size
    import torch

    torch.set_num_threads(task["threads"])
    torch.backends.mkldnn.enabled = task.get("onednn", True)
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


# ------------------------------------------------------------------------------------- inference
def infer(task):
    """Count records per second of the model that the task names, after a first call."""
    signals, features, _, n_classes = arrays(task)
    many = np.arange(task["records"]) % len(signals)
    inputs = signals[many], features[many]
    makers = {"script": script_predictor, "keras": keras_predictor, "torch": torch_predictor}
    predict = makers[task["of"]](task, inputs, n_classes)

    predict()
    start = time.perf_counter()
    predict()
    return len(many) / (time.perf_counter() - start)


def script_predictor(task, inputs, n_classes):
    """Return a function that predicts by the script's model."""
    model = script.create_lightweight_lstm_model(n_classes)
    return lambda: model.predict(inputs, batch_size=task["batch"], verbose=0)


def keras_predictor(task, inputs, n_classes):
    """Return a function that predicts by stock Keras."""
    import keras
    model = thesis.create_model(keras, n_classes)
    return lambda: model.predict(inputs, batch_size=task["batch"], verbose=0)


def torch_predictor(task, inputs, n_classes):
    """Return a function that predicts by PyTorch."""
    import torch
    torch.set_num_threads(task["threads"])
    model = torch_model(torch, n_classes).eval()
    signals, features = (torch.from_numpy(x).split(PREDICTION_BATCH) for x in inputs)

    def predict():
        with torch.inference_mode():
            batches = zip(signals, features, strict=True)
            torch.cat([torch.softmax(model(*batch), dim=1) for batch in batches])

    return predict


# ------------------------------------------------------------------------------------- whole run
def thesis_run(task):
    """Go from label file to evaluated model as the thesis did; return the seconds of training.

    One process, one record at a time (none twice), Keras as it comes. Split and draw are the
    script's, so that the records are the same.
    """
    import keras
    settings = settings_of(task)
    keras.utils.set_random_seed(settings.seed)
    labels = script.read_labels(settings.labels)
    classes = sorted(labels["ecg_category"].unique())
    splits = script.split_patients(labels)
    samples = {"train": settings.train_samples, "validation": settings.val_samples,
               "test": settings.test_samples}
    training, validation, test = (
        thesis_split(part, samples[name], classes, settings, repeat=name == "train")
        for name, part in splits.items())

    signals, features, targets = training
    rng = np.random.default_rng()
    training = script.lightweight_augmentation(signals, rng), features, targets
    start = time.perf_counter()
    model = thesis.create_model(keras, len(classes))
    thesis.train(keras, model, training, validation, settings.recipe.epochs, early_stopping=False)
    seconds = time.perf_counter() - start

    *unseen, truth = test
    predicted = model.predict(tuple(unseen), verbose=0).argmax(axis=1)
    log(classification_report(truth, predicted, labels=range(len(classes)), zero_division=0))
    return seconds


def thesis_split(rows, samples, classes, settings, repeat):
    """Draw the records of one split and prepare them; return signals, features and targets."""
    on_disk = [os.path.exists(f"{settings.data_dir}/{path}.hea") for path in rows["waveform_path"]]
    rows = script.balanced_sampling(rows[on_disk], samples, settings.seed, repeat)
    prepared = {}
    for path in rows["waveform_path"].unique():
        prepared[path] = thesis.prepare_record(f"{settings.data_dir}/{path}")

    pairs = [prepared[path] for path in rows["waveform_path"]]
    signals = np.stack([signal for signal, _ in pairs])
    features = np.stack([features for _, features in pairs])
    return signals, features, pd.Index(classes).get_indexer(rows["ecg_category"])


# ------------------------------------------------------------------------------------------ main
WORKERS = {
    "load": load,
    "step_script": step_script,
    "step_keras": step_keras,
    "step_torch": step_torch,
    "infer": infer,
    "thesis_run": thesis_run,
}


def main():
    """Run one worker."""
    _, name, task = sys.argv
    with contextlib.redirect_stdout(sys.stderr):
        answer = WORKERS[name](json.loads(task))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
