"""Conformance suites, reference implementations and nasty models, for our tests and for yours."""
