"""Training from a configuration file: what ``keydnn train``, ``evaluate`` and ``predict`` do."""
