"""Time tools/make_labels.py on a million made-up records, and measure its memory.

    python benchmarks/labels.py [RECORDS]

prints seconds and peak memory of the tool, which runs as a user would run it.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))    # to run from anywhere

TOOL = ROOT / "tools" / "make_labels.py"
RHYTHMS = ["Sinus rhythm", "Sinus bradycardia", "Sinus tachycardia", "Atrial fibrillation",
           "Sinus rhythm with PVC(s)", "Ventricular pacing", "Atrial flutter"]
SUMMARIES = ["Normal ECG", "Abnormal ECG", "Borderline ECG", "Normal ECG except for rate"]
# A few thousand different findings, as in the true file
SITES = "Inferior", "Anterior", "Lateral", "Septal"
INFARCTS = [f'"{site} infarct, age {age} undetermined"' for site in SITES for age in range(1000)]
FINDINGS = ["Left bundle branch block", "RBBB with left anterior fascicular block", "", *INFARCTS]
REPORTS = ",".join(f"report_{i}" for i in range(18))
MEASUREMENTS_HEADER = (
    f"subject_id,study_id,cart_id,ecg_time,{REPORTS},bandwidth,filtering,rr_interval,p_onset,"
    "p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,t_axis\n")
RECORDS_HEADER = "subject_id,study_id,file_name,ecg_time,path\n"


def write_tables(folder, n):
    """Write `n` records to machine_measurements.csv and record_list.csv, in their true format."""
    rng = np.random.default_rng(0)
    rhythms = rng.choice(RHYTHMS, n)
    summaries = rng.choice(SUMMARIES, n)
    findings = rng.choice(FINDINGS, (n, 3))
    rr = rng.integers(300, 1600, n)    # ms
    findings[rng.random(n) < 0.3] = ""

    with open(folder / "machine_measurements.csv", "w") as measurements, open(
            folder / "record_list.csv", "w") as records:
        measurements.write(MEASUREMENTS_HEADER)
        records.write(RECORDS_HEADER)
        for i in range(n):
            subject = 10_000_000 + i // 5
            study = 40_000_000 + i
            seen = f"2180-07-{i % 28 + 1:02} 08:{i % 60:02}:{i // 60 % 60:02}"
            reports = f"{rhythms[i]},{','.join(findings[i])},{summaries[i]}"
            measurements.write(
                f"{subject},{study},6848296,{seen},{reports}{',' * 13},0.005-150 Hz,"
                f"60 Hz notch Baseline filter,{rr[i]},40,128,170,258,518,81,77,79\n")
            records.write(f"{subject},{study},{study},{seen},"
                          f"files/p{subject // 10_000}/p{subject}/s{study}/{study}\n")


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n", nargs="?", type=int, default=1_000_000, help="records")
    n = parser.parse_args().n
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), n)
        start = time.perf_counter()
        subprocess.run([sys.executable, TOOL, "machine_measurements.csv", "record_list.csv"],  # noqa: S603
                       cwd=folder, check=True)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    gigabytes = peak / (2**30 if sys.platform == "darwin" else 2**20)    # bytes there, else KiB
    print(f"{n:,} records: {seconds:.1f} s, peak memory {gigabytes:.2f} GB")


if __name__ == "__main__":
    main()
