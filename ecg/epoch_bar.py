"""A progress bar of an epoch's steps, on a terminal alone: a log has a line an epoch."""

from typing import Any

from tqdm import tqdm

QUICK = 2.0    # s; an epoch that is over by then shows no bar


def epoch_bar(keras: Any) -> Any:
    """Return the Keras callback; to be called before one that prints a line at an epoch's end."""
    class EpochBar(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            self.bar = tqdm(
                desc=f"epoch {epoch + 1}",
                total=self.params["steps"],
                delay=QUICK,
                leave=False,
                disable=None)    # where stderr is no terminal

        def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
            done = batch + 1    # of several steps at once, the last
            self.bar.update(done - self.bar.n)

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            self.bar.close()

    return EpochBar()
