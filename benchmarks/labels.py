"""Time tools/make_labels.py on a million made-up records, and measure its memory.

    python benchmarks/labels.py [RECORDS]

prints seconds and peak memory of the tool, which runs as a user would run it.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TOOL = Path(__file__).resolve().parent.parent / "tools" / "make_labels.py"
RHYTHMS = ["Sinus rhythm", "Sinus bradycardia", "Sinus tachycardia", "Atrial fibrillation",
           "Sinus rhythm with PVC(s)", "Ventricular pacing", "Atrial flutter"]
SUMMARIES = ["Normal ECG", "Abnormal ECG", "Borderline ECG", "Normal ECG except for rate"]
# A few thousand different findings, as many as the true file holds
FINDINGS = ["Left bundle branch block", "RBBB with left anterior fascicular block", "",
            *(f'"{site} infarct, age {age} undetermined"' for site in
              ("Inferior", "Anterior", "Lateral", "Septal") for age in range(1000))]


def write_tables(folder, n):
    """Write `n` records to machine_measurements.csv and record_list.csv, true in their format."""
    rng = np.random.default_rng(0)
    reports = ",".join(f"report_{i}" for i in range(18))
    with open(folder / "machine_measurements.csv", "w") as measurements, open(
            folder / "record_list.csv", "w") as records:
        measurements.write(f"subject_id,study_id,cart_id,ecg_time,{reports},bandwidth,filtering,"
                           "rr_interval,p_onset,p_end,qrs_onset,qrs_end,t_end,p_axis,qrs_axis,"
                           "t_axis\n")
        records.write("subject_id,study_id,file_name,ecg_time,path\n")
        rhythms, summaries = rng.choice(RHYTHMS, n), rng.choice(SUMMARIES, n)
        findings, rr = rng.choice(FINDINGS, (n, 3)), rng.integers(300, 1600, n)
        findings[rng.random(n) < 0.3] = ""
        for i in range(n):
            subject, study = 10_000_000 + i // 5, 40_000_000 + i
            seen = f"2180-07-{i % 28 + 1:02}" + f" 08:{i % 60:02}:{i // 60 % 60:02}"
            measurements.write(
                f"{subject},{study},6848296,{seen},{rhythms[i]},{','.join(findings[i])},"
                f"{summaries[i]}{',' * 13},0.005-150 Hz,60 Hz notch Baseline filter,{rr[i]},"
                "40,128,170,258,518,81,77,79\n")
            records.write(f"{subject},{study},{study},{seen},"
                          f"files/p{subject // 10_000}/p{subject}/s{study}/{study}\n")


def main():
    """Run the benchmark."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
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
