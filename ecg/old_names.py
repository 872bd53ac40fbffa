"""Flags and settings of former versions, each with a sentence that says what to use instead."""

FLAGS = {
    "--model": "--model large is now --recipe large",
    "--force": "it is gone: a run replaces the files of its own --output and results folder",
    "--adapt": "it is gone: --start-from fits the last layer; thousands of labels train a model "
               "from scratch, without --start-from",
    "--max-unusable": "it is gone: a run stops where half of a class's records are unusable",
    "--jit": "it is now --set xla=true",
    "--no-jit": "it is now --set xla=false",
    "--spares": "it is gone: fetch_records.py adds 5 % of each class by itself",
    "--all": "it is gone: --train-samples 10000000 fetches all of training"}

CONSTANT = "it is no setting any more, but a constant of the augmentation in too_feature.py"
METHOD = {    # of --set
    "keep": "it is now keep_weights",
    "settle": "it is now freeze_bn_after",
    "memory": "it is now lstm_memory",
    "span": "it is now scale_span",
    "noise_probability": CONSTANT,
    "noise_size": CONSTANT,
    "scaling_probability": CONSTANT,
    "scaling_size": CONSTANT}
