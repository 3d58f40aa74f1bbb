"""What the study must reach on its default, one file per subject; ``python -m tangrams.study.check`` prints it."""
