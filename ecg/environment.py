"""Import TensorFlow as this project needs it: late, on the CPU, in one thread."""

import contextlib
import ctypes
import functools
import gc
import os

from ecg.errors import UserError


@functools.cache
def load_tensorflow() -> tuple:
    """Import TensorFlow on first use, with all GPUs hidden; return it and Keras.

    Raises
    ------
    UserError
        It is not installed, too old, or next to a tensorflow-metal or NumPy that does not fit.
    """
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_METAL_DEVICE_ENABLE="0",
                      TF_USE_LEGACY_KERAS="0",    # Keras 2 would give other optimizers
                      KERAS_BACKEND="tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import keras
        import tensorflow as tf
        if keras.__version__ < "3":
            raise ImportError(f"TensorFlow {tf.__version__} is too old")
    except Exception as error:    # whatever an installation that does not fit raises
        first_line = str(error).partition("\n")[0]
        raise UserError(f"TensorFlow 2.16 or newer is needed ({first_line}): "
                        "pip install -r requirements.txt") from error

    # The products of a step of the LSTM are so small that calling a library takes longer. The
    # user's own flags come last, and win. XLA ends the process at a flag that it does not know
    flags = ["--xla_cpu_multi_thread_eigen=false"]
    if tf.__version__.startswith("2.21."):    # whose new emitters make a step a fifth slower
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([*flags, os.environ.get("XLA_FLAGS", "")])
    keep_freed_memory()
    with contextlib.suppress(RuntimeError):    # a notebook may have used TensorFlow before
        tf.config.set_visible_devices([], "GPU")    # Metal crashes (SIGBUS) or slows LSTMs
        tf.config.threading.set_intra_op_parallelism_threads(1)    # too small to gain from more
    gc.freeze()    # else each garbage collection takes 0.2 s
    return tf, keras


def keep_freed_memory() -> None:
    """Have glibc, where there is one, keep the buffers of a training step for the next step.

    As it comes, it gives them back to the system, which then has to clear them each time.
    """
    trim_threshold, mmap_threshold = -1, -3    # of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):    # macOS, Windows, musl
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**25)
