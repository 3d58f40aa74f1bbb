"""Estimators that fit on features."""
