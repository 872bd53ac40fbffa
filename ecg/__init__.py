"""Modules that `too_feature.py` imports. None of them imports the script.

border  label_file      rows of a label file, opened safely
        label_rows      these rows checked, each of a person and each record once; a published split
        wfdb_files      WFDB headers, leads, units, gains and gaps: all of reading
        models          strangers' .keras files: arrays and nothing else
data    patients        who is a patient, by names and recordings; repair of a split
        recordings      whether ECGs are of one recording; what a shipped model has learnt from
        draw            a split's records drawn, those that cannot be used replaced
        left_out        records that cannot be used, counted by reason
        origin          where labels come from; version, commit and packages
        signals         any array to leads without gaps
        r_peaks         all of finding beats
        large_features  40 features more than the 8: rhythm, P, QRS, ST, T, spectrum
        cache           many records prepared at once and kept
        cluster         an existing Dask cluster as workers
train   environment     TensorFlow imported late, on the CPU
        fast_lstm       Keras's LSTM, faster
        two_phases      training compiled once for both of its phases
        large_model     the model of --recipe large
        baseline        a logistic regression on the same features
        rate_step       the heart rate decides between bradycardia, normal and tachycardia
        checkpoint      what --resume goes on from
        adaptation      the last layer fitted to few labels
tell    metrics         accuracy, calibration, thresholds, the rate rule
        intervals       figures of a test with intervals over its patients, by the jackknife
        cohort          what became of each record, table 1, groups of patients
        report          the figures of an evaluation in words
        card            what a model takes and gives, in words and numbers
        explain         what moved a probability: integrated gradients
base    errors          errors that the user can fix, in one line; text from files made safe
        files           whole files, hashes, a folder of one run at a time
        settings        flags of the command line from a dataclass
        old_names       flags and settings of former versions
        packages        missing packages in one line
        demo            synthetic 12-lead ECGs
output/                 what a run leaves behind: tables, figures, ECG pages, model card, index.html
"""

__version__ = "3.0.0"
