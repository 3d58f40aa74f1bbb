"""One runnable file per paper: its central claim, measured."""
