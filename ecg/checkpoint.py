"""What a training run keeps after each epoch, for --resume to go on from.

Keras's BackupAndRestore keeps weights, optimizer and epoch, but neither what EarlyStopping and
ReduceLROnPlateau have counted nor the history: a resumed run would end differently.
"""

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ecg import files, origin
from ecg.errors import UserError

# What EarlyStopping and ReduceLROnPlateau count, apart from the best weights
COUNTERS = "wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter"


class Checkpoint:
    """The state of a training run in a folder.

    Parameters
    ----------
    folder : for state.npz
    key : what the run depends on, ready for JSON: a state is used only if its key is the same
    resume : whether to go on from the state in the folder

    Attributes
    ----------
    done : epochs that the interrupted run has done; all of them if it was stopped early
    history : the logs of these epochs

    Raises
    ------
    UserError
        The state is of a run with another key.
    """

    def __init__(self, folder: Path, key: dict, resume: bool) -> None:
        self.folder = folder
        self.key = json.loads(json.dumps(key))
        self.done = 0
        self.history: list[dict] = []
        self._arrays: list[np.ndarray] = []
        file = folder / "state.npz"
        if resume and file.exists():
            self._read(file)
            print(f"going on after epoch {len(self.history)}")
        elif resume:
            print(f"notice: nothing to go on from in {folder}: starting at the beginning")

    def _read(self, file):
        with np.load(file) as stored:
            text, *self._arrays = stored.values()
        notes = json.loads(text.item())
        key = notes["key"]
        differing = [name for name, value in self.key.items() if key.get(name) != value]
        if differing:
            raise UserError(f"--resume: the interrupted run had other {', '.join(differing)}: give "
                            "the same, or start without --resume")
        self.done = notes["done"]
        self.history = notes["history"]
        self._counters = notes["counters"]

    def callback(self, keras: Any, counting: list, history: list[dict]) -> Any:
        """Return the Keras callback that restores the state, and saves it after each epoch.

        Parameters
        ----------
        keras : module
        counting : callbacks whose counters and best weights belong to the state
        history : logs of all epochs so far, to which another callback appends those of each epoch

        Returns
        -------
        keras.callbacks.Callback
            To be called after all others, so that what they did to an epoch is in its state.
        """
        checkpoint = self

        class Keep(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                checkpoint.restore(self.model, counting)

            def on_epoch_end(self, epoch, logs=None):
                done = self.params["epochs"] if self.model.stop_training else epoch + 1
                checkpoint.save(self.model, counting, history, done)

        return Keep()

    def restore(self, model: Any, counting: list) -> None:
        """Put the state that was read into a compiled model and its callbacks, once."""
        if not self._arrays:
            return
        arrays = iter(self._arrays)
        for variable in [*model.variables, *model.optimizer.variables]:
            variable.assign(next(arrays))
        for callback, (counters, n_best) in zip(counting, self._counters, strict=True):
            vars(callback).update(counters)
            if n_best:
                callback.best_weights = [next(arrays) for _ in range(n_best)]
        self._arrays = []

    def save(self, model: Any, counting: list, history: list[dict], done: int) -> None:
        """Write the state as a whole; `UserError` if that is not possible."""
        arrays = [np.array(x) for x in (*model.variables, *model.optimizer.variables)]
        counters = []
        for callback in counting:
            best = getattr(callback, "best_weights", None) or []
            arrays += map(np.array, best)
            counted = {name: n for name, n in vars(callback).items() if name in COUNTERS}
            counters.append((counted, len(best)))

        notes = {"key": self.key, "done": done, "history": history, "counters": counters}
        content = files.npz(*arrays, notes=json.dumps(notes, default=float))
        files.write_bytes(self.folder / "state.npz", content)


def of_run(folder: Path, training: Any, validation: Any, settings: Any) -> Checkpoint:
    """Return the state that an interrupted run left in a folder, or an empty one.

    For the script's `Records` and `Settings`. `UserError` if --resume finds another run's.
    """
    # Features change whenever signals do, and are smaller
    arrays = training.features, training.targets, validation.features, validation.targets
    key = {
        **dataclasses.asdict(settings.recipe),
        "seed": settings.seed,
        "records": [zlib.crc32(array.tobytes()) for array in arrays],
        "code": files.code_sha256(),
        **origin.versions()}
    return Checkpoint(folder, key, settings.resume)
