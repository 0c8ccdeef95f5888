"""Public conformance suites: what every op, kernel, layer and optimizer promises."""
