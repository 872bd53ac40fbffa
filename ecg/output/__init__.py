"""What a run leaves behind: its results folder, written and read, its figures and its card."""
