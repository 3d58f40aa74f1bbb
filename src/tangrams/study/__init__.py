"""The main job: what a trained network learned, asked of its tangent features."""
