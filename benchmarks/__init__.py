"""Programs that measure accuracy and speed against baselines."""
