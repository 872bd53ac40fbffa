"""What this project says about itself wherever it shows a result: one wording for each notice."""

NOT_MEDICAL = "This is not a medical device."
MACHINE_READ = "The labels are machine reads, not a cardiologist's."
SYNTHETIC = "THIS DATA IS SYNTHETIC (the demo): its figures say nothing about real patients."
SYNTHETIC_MARK = "synthetic demo data"    # short, for the foot of a figure
