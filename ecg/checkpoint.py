"""What a training run keeps after each epoch: its log, and the state that it can go on from.

Knows nothing of ECGs or of the script: a Keras model, callbacks and a folder.
"""

import importlib.util
import io
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecg import files

# What EarlyStopping and ReduceLROnPlateau count, apart from the best weights
COUNTERS = "wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter"
STATE = "state.npz"
LOG = "history.csv"


def checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's content, for a key."""
    return zlib.crc32(np.asarray(array).tobytes())


def shapes(arrays: dict[str, np.ndarray]) -> dict[str, list]:
    """Return the type and shape of each array, ready for JSON."""
    return {name: [x.dtype.str, list(x.shape)] for name, x in arrays.items()}


def differences(before: dict, now: dict) -> list[str]:
    """Say in which entries two keys differ; of lists, such as checksums, only that they do."""
    found = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old == new:
            continue

        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new)
        elif isinstance(new, list):
            found.append(f"other {name}")
        else:
            found.append(f"{name} {old}, not {new}")
    return found


def load(file: Path, key: dict) -> tuple[dict[str, np.ndarray], dict]:
    """Read a state.

    Returns
    -------
    arrays : by name, as `Checkpoint.save` names them
    notes : the key, the history, the epochs done and the counters of callbacks

    Raises
    ------
    ValueError
        If the file is damaged, or of a run with another key.
    """
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        notes = json.loads(arrays.pop("notes").item())
        other = differences(notes["key"], json.loads(json.dumps(key)))
        if shapes(arrays) != notes["shapes"]:
            raise ValueError("other arrays")
    except Exception as error:    # NumPy and its archives raise whatever the damage leads to
        raise ValueError(f"{file} is damaged ({type(error).__name__}): start without --resume, "
                         "from the beginning") from error

    if other:
        raise ValueError(f"--resume: the interrupted run had {'; '.join(other)[:200]}: give the "
                         "same, or start without --resume")
    return arrays, notes


class Checkpoint:
    """The state of a training run in a folder, to go on from after an interruption.

    Parameters
    ----------
    folder : for `STATE` and `LOG`
    key : what the run depends on, ready for JSON: a state is used only if its key is the same
    resume : whether to read the state that is in the folder

    Attributes
    ----------
    done : epochs that the interrupted run has done; 0 if there is nothing to go on from, and the
        number of all epochs if it was stopped early
    history : the logs of these epochs

    Raises
    ------
    ValueError
        If the state is damaged, or of a run with another key.
    """

    def __init__(self, folder: Path, key: dict, resume: bool) -> None:
        self.folder = folder
        self.key = key
        self.done = 0
        self.history: list[dict] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._counters: list[dict] = []

        if resume and (folder / STATE).exists():
            self._arrays, notes = load(folder / STATE, key)
            self.done = notes["done"]
            self.history = notes["history"]
            self._counters = notes["counters"]
            print(f"going on after epoch {len(self.history)}")
        elif resume:
            print(f"notice: nothing to go on from in {folder}: starting at the beginning")

    def start_afresh(self) -> None:
        """Remove the folder, with all that an earlier run has left there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def callback(self, keras: Any, counting: list, history: list[dict]) -> Any:
        """Return the Keras callback that restores the state and saves it after each epoch.

        Parameters
        ----------
        keras : the Keras module
        counting : callbacks whose counters and best weights belong to the state
        history : logs of all epochs so far, to which another callback appends those of each epoch

        Returns
        -------
        keras.callbacks.Callback
            To be called after all others, so that what they did to an epoch is in its state.
        """
        checkpoint = self

        class Keep(keras.callbacks.Callback):
            def on_train_begin(self, logs: dict | None = None) -> None:
                checkpoint.restore(self.model, counting)

            def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
                done = self.params["epochs"] if self.model.stop_training else epoch + 1
                checkpoint.save(self.model, counting, history, done)

        return Keep()

    def restore(self, model: Any, counting: list) -> None:
        """Put the state that was read into a compiled model and its callbacks, once."""
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if not self._arrays:
            return

        for i, variable in enumerate(_variables(model)):
            variable.assign(self._arrays[f"variable {i}"])
        for i, callback in enumerate(counting):
            vars(callback).update(self._counters[i])
            n = sum(name.startswith(f"best {i} ") for name in self._arrays)
            if n:
                callback.best_weights = [self._arrays[f"best {i} {j}"] for j in range(n)]
        self._arrays = {}

    def save(self, model: Any, counting: list, history: list[dict], done: int) -> None:
        """Write the state and the log, each as a whole.

        Raises
        ------
        UserError
            If they cannot be written.
        """
        state = {f"variable {i}": np.array(x) for i, x in enumerate(_variables(model))}
        for i, callback in enumerate(counting):
            for j, array in enumerate(getattr(callback, "best_weights", None) or []):
                state[f"best {i} {j}"] = np.array(array)

        counters = [{name: vars(callback)[name] for name in COUNTERS if name in vars(callback)}
                    for callback in counting]
        notes = {"key": self.key, "history": history, "shapes": shapes(state), "done": done,
                 "counters": counters}

        content = io.BytesIO()    # on a full disk, NumPy's archive would print a traceback
        np.savez(content, notes=json.dumps(notes, default=float), **state)
        files.write_whole(self.folder / STATE, lambda file: file.write_bytes(content.getvalue()))
        log = pd.DataFrame(history)
        files.write_whole(self.folder / LOG, lambda file: log.to_csv(file, index=False))


def _variables(model: Any) -> list:
    """Return all that training changes; a layer's own variables hold what draws its dropout."""
    of_layers = [variable for layer in model.layers for variable in layer.variables]
    return of_layers + model.optimizer.variables


def tensorboard_callback(keras: Any, folder: Path) -> Any:
    """Return the callback that writes events for TensorBoard to a folder.

    Raises
    ------
    ImportError
        If TensorBoard is not installed.
    """
    if not importlib.util.find_spec("tensorboard"):
        raise ImportError("TensorBoard is not installed: pip install tensorboard")
    return keras.callbacks.TensorBoard(folder, write_graph=False)
