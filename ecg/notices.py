"""What this project says about itself wherever it shows a result: one wording for each notice."""

NOT_MEDICAL = "This is not a medical device."
TRAINED_ON_SYNTHETIC = "This model was trained on synthetic records."
SYNTHETIC = "THIS DATA IS SYNTHETIC (the demo): its figures say nothing about real patients."
MAY_HAVE_SEEN = ("This model comes from one that has learnt from the label file of the test "
                 "patients, and may have seen them: only other patients can tell how good it is.")
SYNTHETIC_MARK = "synthetic demo data"    # short, for the foot of a figure


def origin_of_labels(origin: str, of_test: str = "") -> str:
    """Say where the labels come from, and those of another test file where that differs."""
    words = f"Origin of the labels: {origin.rstrip(' .')}."
    if of_test and of_test != origin:
        words += f" Origin of the test labels: {of_test.rstrip(' .')}."
    return words


def about_results(origin: str, of_test: str = "") -> str:
    """Return what stands at the end of a report."""
    return f"{origin_of_labels(origin, of_test)} {NOT_MEDICAL}"


def about_model(origin: str, is_synthetic: bool, of_start: str = "") -> str:
    """Return what stands wherever a model speaks, given the origin of its training labels.

    `of_start` is that of the labels of the model from which it was adapted, if it was.
    """
    words = about_results(origin)
    if of_start and of_start != origin:
        words = f"Adapted from a model whose labels are: {of_start.rstrip(' .')}. {words}"
    return f"{TRAINED_ON_SYNTHETIC} {words}" if is_synthetic else words
