"""Layers, heads, losses, parametrizations and optimisers."""
