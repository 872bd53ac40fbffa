"""Tools beside the script; a package, so that no other `tools` on the path is taken for it."""
