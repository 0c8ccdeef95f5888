"""``python -m keydnn`` is the command line ``keydnn``."""

from keydnn.cli import main

if __name__ == "__main__":
    main()
