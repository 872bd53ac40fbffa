"""What several tests need: simulated ECGs, runs of the script, injected faults."""
