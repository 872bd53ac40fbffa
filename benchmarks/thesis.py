"""The original of the thesis to the letter, mistakes and all: here and nowhere else.

The script's recipe `thesis` has the mistakes fixed. Kept here: 50 Hz are taken for 100 Hz, which
doubles heart rates and makes one beat of two that are less than half a second apart; R peaks are
found in the unfiltered lead; features enter the network unscaled; validation repeats records. What
the thesis leaves open (sizes of noise and scaling, whether once or in each epoch) is as in the
script, and done once.
"""

import functools

import numpy as np
import wfdb
from scipy import signal as dsp
from scipy import stats
from sklearn.preprocessing import RobustScaler
from sklearn.utils.class_weight import compute_sample_weight

import too_feature as script
from benchmarks.systems import fitted

POINTS = 500
WRONG_FS_HZ = 100    # POINTS in ten seconds are 50 Hz
BATCH_SIZE = 4
EPOCHS = 15
TRAIN_SAMPLES = 1500
VALIDATION_SAMPLES = 300


def prepare_record(path):
    """Read and prepare one record by its path without extension."""
    record = wfdb.rdrecord(path)
    return prepare(record.p_signal, record.sig_name.index("II"))


def prepare(signal, lead_ii=script.LEAD_II):
    """Prepare an ECG (samples, 12) in mV: float32 (500, 12), scaled, and its eight features."""
    resampled = np.stack([dsp.resample(lead, POINTS) for lead in signal.T], axis=1)
    resampled = np.nan_to_num(resampled)    # a lead with a gap is lost as a whole
    scaled = np.clip(RobustScaler().fit_transform(resampled), -3, 3)
    return scaled.astype(np.float32), measure_features(resampled[:, lead_ii])


def measure_features(lead, fs=WRONG_FS_HZ):
    """Measure the eight features of lead II; what cannot be measured is 0."""
    peaks, _ = dsp.find_peaks(lead, height=lead.std() * 0.5, distance=fs // 4)
    rr = np.diff(peaks) / fs    # s
    rhythm = [0.0] * 4
    if len(rr) >= 2:
        rmssd = np.sqrt(np.mean(np.diff(rr) ** 2))
        rhythm = [60 / rr.mean(), 1000 * rr.std(), 1000 * rmssd, rr.std() / rr.mean()]
    shape = [lead.mean(), lead.std(), stats.skew(lead), stats.kurtosis(lead)]
    return np.nan_to_num(np.array(shape + rhythm, np.float32))


def train(training, validation, n_classes, seed, patience=5, epochs=EPOCHS, callbacks=(),
          **compile_options):
    """Train a model as the thesis did, on unscaled features; return it.

    Parameters
    ----------
    training, validation : tuple
        Signals, features and targets.
    n_classes : int
    seed : int
    patience : int
        Epochs without better accuracy before training ends.
    epochs : int
    callbacks : sequence of keras.callbacks.Callback
        More of them.
    **compile_options
        For `model.compile`, such as jit_compile.
    """
    _, keras = script.load_tensorflow()
    keras.utils.set_random_seed(seed)
    signals, features, targets = training
    signals = script.lightweight_augmentation(signals, np.random.default_rng(seed))
    n = len(targets) // BATCH_SIZE * BATCH_SIZE    # a short last batch would be compiled anew
    stopping = keras.callbacks.EarlyStopping(
        "val_accuracy", patience=patience, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3, min_lr=1e-6)

    # The script's model as Keras starts it, with features that pass as they are
    model = script.create_lightweight_lstm_model(
        n_classes, POINTS, feature_limit=np.inf, lstm_memory=0, rate_curve=False)
    model.compile(
        keras.optimizers.Adam(5e-4),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **compile_options)
    model.fit(
        (signals[:n], features[:n]),
        targets[:n],
        batch_size=BATCH_SIZE,
        epochs=epochs,
        sample_weight=compute_sample_weight("balanced", targets[:n]),
        validation_data=(validation[:2], validation[2]),
        validation_batch_size=100,
        callbacks=[stopping, plateau, *callbacks],
        verbose=0)
    return model


# -------------------------------------------------------------------------------------- accuracy
def fit(task):
    """Train the thesis's model for the table of accuracy; validation repeats records, too."""
    pool = task.pool
    signals, features = prepare_all(pool)
    features = np.nan_to_num(features)    # amplitudes that --no-amplitudes takes away

    def draw(numbers, samples):
        drawn = pool.draw(numbers, samples, task.seed, repeat=True)
        return signals[drawn], features[drawn], pool.targets[drawn]

    training = draw(task.fold.train, TRAIN_SAMPLES)
    validation = draw(task.fold.validation, VALIDATION_SAMPLES)
    model = train(training, validation, len(pool.classes), task.seed, jit_compile=True)
    return fitted(model, (signals, features))


def prepare_all(pool):
    """Return signals and features of all records of a pool."""
    return pool.prepare("thesis", lambda row: prepare(
        script.read_record(f"{row.folder}/{row.waveform_path}", row.folder).signal))


# ----------------------------------------------------------------------------------------- speed
def run():
    """Go from the demo's label file to predictions for test records, to time it.

    One process, one record at a time (none twice), Keras as it comes, no early stopping. Split and
    draw are the script's, so that the records are the same.
    """
    settings = script.Settings()
    splits = script.split_patients(script.read_labels(settings.labels))
    samples = settings.train_samples, settings.val_samples, settings.test_samples
    once = functools.cache(prepare_record)
    parts = []
    for name, n in zip(script.SPLITS, samples, strict=True):
        rows = script.balanced_sampling(splits[name], n, settings.seed, name == "train")
        pairs = [once(f"{settings.data_dir}/{path}") for path in rows["waveform_path"]]
        classes, targets = np.unique(rows["ecg_category"], return_inverse=True)
        parts.append((*map(np.stack, zip(*pairs, strict=True)), targets))

    training, validation, test = parts
    model = train(training, validation, len(classes), settings.seed, patience=EPOCHS)
    model.predict(test[:2], verbose=0)
