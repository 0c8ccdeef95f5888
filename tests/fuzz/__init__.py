"""Damaged and hostile files for everything that reads files: `./dev fuzz`."""
