"""The original of the thesis to the letter, mistakes and all: here and nowhere else.

The script's recipe `thesis` has the mistakes fixed. Kept here: 50 Hz are taken for 100 Hz, which
doubles heart rates and makes one beat of two that are less than half a second apart; R peaks are
found in the unfiltered lead; features enter the network unscaled; validation repeats records. What
the thesis leaves open (sizes of noise and scaling, whether once or in each epoch) is as in the
script, and done once.
"""

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
    threshold = np.std(lead) * 0.5
    peaks, _ = dsp.find_peaks(lead, height=threshold, distance=fs // 4)
    rr = np.diff(peaks) / fs    # s
    rhythm = [0.0, 0.0, 0.0, 0.0]
    if len(rr) >= 2:
        mean = np.mean(rr)
        sdnn = np.std(rr)
        rmssd = np.sqrt(np.mean(np.diff(rr) ** 2))
        rhythm = [60 / mean, 1000 * sdnn, 1000 * rmssd, sdnn / mean]

    shape = [
        np.mean(lead),
        np.std(lead),
        stats.skew(lead),
        stats.kurtosis(lead),
    ]
    features = np.array(shape + rhythm, np.float32)
    return np.nan_to_num(features)


def create_model(keras, n_classes):
    """Build the dual-branch LSTM of Keras's own layers: 8,461 parameters for five classes."""
    layers = keras.layers

    def dense(x, units, dropout):
        x = layers.Dense(units, activation="relu")(x)
        x = layers.BatchNormalization()(x)
        return layers.Dropout(dropout)(x)

    ecg = keras.Input((POINTS, 12))
    features = keras.Input((8,))
    x = dense(layers.LSTM(32, dropout=0.2)(ecg), 24, 0.3)
    y = dense(features, 16, 0.2)
    z = dense(layers.Concatenate()([x, y]), 32, 0.3)
    return keras.Model([ecg, features], layers.Dense(n_classes, activation="softmax")(z))


def train(keras, model, training, validation, epochs, early_stopping=True, **compile_options):
    """Train a model as the thesis did.

    Parameters
    ----------
    keras : module
    model : keras.Model
    training, validation : tuple
        Signals, features and targets.
    epochs : int
        At most, or with `early_stopping` False exactly.
    early_stopping : bool
    **compile_options
        For `model.compile`, such as jit_compile.
    """
    signals, features, targets = training
    unseen_signals, unseen_features, unseen_targets = validation
    stopping = keras.callbacks.EarlyStopping(
        "val_accuracy", patience=5, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3, min_lr=1e-6)
    callbacks = [stopping, plateau] if early_stopping else [plateau]

    model.compile(
        keras.optimizers.Adam(5e-4),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **compile_options)
    model.fit(
        (signals, features),
        targets,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        sample_weight=compute_sample_weight("balanced", targets),
        validation_data=((unseen_signals, unseen_features), unseen_targets),
        validation_batch_size=100,
        callbacks=callbacks,
        verbose=0)


def fit(task):
    """Train the thesis's model on unscaled features, with repeated records in validation too."""
    _, keras = script.load_tensorflow()
    keras.utils.set_random_seed(task.seed)
    pool = task.pool
    signals, features = prepare_all(pool)
    features = np.nan_to_num(features)    # amplitudes that --no-amplitudes takes away
    drawn = pool.draw(task.fold.train, TRAIN_SAMPLES, task.seed, repeat=True)
    checked = pool.draw(task.fold.validation, VALIDATION_SAMPLES, task.seed, repeat=True)

    rng = np.random.default_rng(task.seed)
    varied = script.lightweight_augmentation(signals[drawn], rng)
    model = create_model(keras, len(pool.classes))

    n = len(drawn) // BATCH_SIZE * BATCH_SIZE    # a short last batch would be compiled anew
    training = varied[:n], features[drawn[:n]], pool.targets[drawn[:n]]
    validation = signals[checked], features[checked], pool.targets[checked]
    epochs = task.epochs or EPOCHS
    train(keras, model, training, validation, epochs, jit_compile=True)
    return fitted(model, (signals, features))


def prepare_all(pool):
    """Return signals and features of all records of a pool."""
    return pool.prepare("thesis", prepare_row)


def prepare_row(row):
    """Prepare the record of one row of a pool, which the script reads."""
    record = script.read_record(f"{row.folder}/{row.waveform_path}", row.folder)
    return prepare(record.signal)
