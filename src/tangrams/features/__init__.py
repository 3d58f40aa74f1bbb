"""Data → feature matrix: tangent, random, learned and hand-made features."""
