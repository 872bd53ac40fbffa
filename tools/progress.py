"""What a training run keeps after each epoch: the state that it can go on from, and its log.

Knows nothing of ECGs or of the script: a Keras model, callbacks and a folder.
"""

import importlib.util
import io
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

# What EarlyStopping and ReduceLROnPlateau count; beside them, the best weights
COUNTERS = "wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter"
STATE, LOG = "state.npz", "history.csv"
# Settings that change nothing of how one model is trained
ELSEWHERE = {"labels", "data_dir", "test_labels", "test_data_dir", "test_samples",
             "output", "results", "figures", "tensorboard", "resume", "repeats", "jobs",
             "scheduler", "cache", "cache_dir", "max_unusable"}


def shapes(arrays):
    """Return name, type and shape of arrays, ready for JSON."""
    return {name: [x.dtype.str, list(x.shape)] for name, x in arrays.items()}


def load(file, key):
    """Return the arrays and the notes of a state; `ValueError` if it is damaged or of other key."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        notes = json.loads(arrays.pop("notes").item())
        before, now = notes["key"], json.loads(json.dumps(key))
        if shapes(arrays) != notes["shapes"]:
            raise ValueError("other arrays")
    except Exception as error:    # NumPy and its archives raise whatever the damage leads to
        raise ValueError(f"{file} is damaged ({type(error).__name__}): start without --resume, "
                         "from the beginning") from error
    other = [f"other {name}" if isinstance(now.get(name), list) else
             f"{name} {before.get(name)}, not {now.get(name)}" for name in {**before, **now}
             if before.get(name) != now.get(name)]
    if other:
        raise ValueError(f"--resume: the interrupted run had {'; '.join(other)[:200]}: give the "
                         "same, or start without --resume")
    return arrays, notes


def follow(keras, callbacks, history, folder, settings, versions, content, write):
    """Add to `callbacks` what keeps the state of a training run, and takes up a former one's.

    Parameters
    ----------
    callbacks : list of keras.callbacks.Callback, extended; those before have counters to keep
    history : list of dict, logs of the epochs; a former run's are put into it
    folder : Path, for `STATE` and `LOG`
    settings : dataclass; if it says `resume`, the state in `folder` is taken up, and if it says
        `tensorboard`, events are written, too
    versions : dict, of the packages
    content : list of ndarray, by which the same records and the same script are known
    write : callable (file, save), lets `save` fill a new file and moves it to `file` as a whole

    Returns
    -------
    int, epochs that a former run has done; its state is put in place when `fit` begins.

    Raises
    ------
    ValueError
        If the state is damaged or of another run.
    ImportError
        If TensorBoard is asked for and not installed.
    """
    if settings.tensorboard and not importlib.util.find_spec("tensorboard"):
        raise ImportError("TensorBoard is not installed: pip install tensorboard")
    counting, arrays, done, resume = list(callbacks), None, 0, settings.resume
    key = {name: value for name, value in vars(settings).items() if name not in ELSEWHERE}
    for name in ("fast_lstm.py", "large_model.py"):
        if (source := Path(__file__).with_name(name)).exists():
            key[name] = zlib.crc32(source.read_bytes())
    key |= versions | {"records or script": [zlib.crc32(np.ascontiguousarray(x)) for x in content]}
    if resume and (folder / STATE).exists():
        arrays, notes = load(folder / STATE, key)
        done, counters = notes["done"], notes["counters"]
        history += notes["history"]
        print(f"going on after epoch {len(history)}")
    else:
        if resume:
            print(f"notice: nothing to go on from in {folder}: starting at the beginning")
        shutil.rmtree(folder, ignore_errors=True)

    class Keep(keras.callbacks.Callback):
        """Called after all others, so that what they did to this epoch is in."""

        def variables(self):    # a layer's own hold what draws its dropout, too
            of_layers = [x for layer in self.model.layers for x in layer.variables]
            return of_layers + self.model.optimizer.variables

        def on_train_begin(self, logs=None):
            nonlocal arrays
            if not self.model.optimizer.built:
                self.model.optimizer.build(self.model.trainable_variables)
            if arrays is None:
                return
            for i, variable in enumerate(self.variables()):
                variable.assign(arrays[f"variable {i}"])
            for i, callback in enumerate(counting):
                vars(callback).update(counters[i])
                if f"best {i} 0" in arrays:
                    n = sum(name.startswith(f"best {i} ") for name in arrays)
                    callback.best_weights = [arrays[f"best {i} {j}"] for j in range(n)]
            arrays = None

        def on_epoch_end(self, epoch, logs=None):
            stopped = self.model.stop_training
            state = {f"variable {i}": np.array(x) for i, x in enumerate(self.variables())}
            for i, callback in enumerate(counting):
                for j, array in enumerate(getattr(callback, "best_weights", None) or []):
                    state[f"best {i} {j}"] = np.array(array)
            notes = {"key": key, "history": history, "shapes": shapes(state),
                     "done": self.params["epochs"] if stopped else epoch + 1, "counters": [
                         {name: vars(x)[name] for name in COUNTERS if name in vars(x)}
                         for x in counting]}

            content = io.BytesIO()    # on a full disk, NumPy's archive would print a traceback
            np.savez(content, notes=json.dumps(notes, default=float), **state)
            write(folder / STATE, lambda file: file.write_bytes(content.getvalue()))
            write(folder / LOG, lambda file: pd.DataFrame(history).to_csv(file, index=False))

    if settings.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    callbacks.append(Keep())
    return done
