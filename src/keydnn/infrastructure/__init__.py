"""Import paths that older programs use.  Nothing is defined here: see :mod:`keydnn`."""
