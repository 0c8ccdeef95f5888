"""Other libraries: one file for each, which imports it only when it is asked for something."""
