"""Programs around the script: classify, export, fetch, label, check labels, draw."""
