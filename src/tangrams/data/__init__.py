"""Loaders, generators and :class:`Labelled`."""
