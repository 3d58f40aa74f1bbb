"""The conformance suites, one file per role."""
