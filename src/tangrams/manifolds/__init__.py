"""Where features live."""
