"""Rooms that `too_feature.py` stands on. None of them imports the script.

packages        says in one line which packages are missing
errors          errors that the user can fix, in one line
escape          text from files, safe for terminals, Markdown and HTML
files           whole files, hashes, a fingerprint of code, folders of one run at a time
garbage         no search for garbage where there is none
old_names       former flags and settings, each with what to use instead
settings        flags of the command line from a dataclass
provenance      version, commit and packages, so that a result can be traced
label_file      rows of a label file, opened safely
wfdb_files      WFDB headers and samples, checked
signals         any array to leads without gaps
beats           which peaks of a QRS envelope are beats
r_peaks         R peaks refined to a fraction of a sample; gaps
labels_origin   where labels come from, in words; which of them a model has learnt from
patients        repair of a split; another hospital's patients
copies          copies of a record, whatever its name and patient
left_out        records that cannot be used, counted by reason
card            what a model takes and gives, in words and numbers
cache           many records prepared at once and kept
cluster         an existing Dask cluster as workers
checkpoint      what --resume goes on from
fast_lstm       Keras's LSTM, faster
batch_norm      Keras's batch normalisation, frozen without being compiled anew
epoch_bar       a progress bar of an epoch's steps
large_features  40 more features: rhythm, P, QRS, ST, T, spectrum
adaptation      a trained model for another hospital: its last layer fitted to few labels
large_model     the model of --recipe large
baseline    the baseline: a logistic regression
metrics         intervals, calibration, the rate rule
report          figures in words
models      checks of a .keras file before Keras opens it
explain         what moved a probability: integrated gradients
demo            synthetic 12-lead ECGs
notices         sentences that stand in several places
output/         what a run leaves behind: tables, figures, ECG pages, model card, index.html
"""

__version__ = "2.1.0"
