"""Features on disk: arrays and a header that says exactly what they are."""
