"""Contestants for a process of their own that misbehave."""

import os

from benchmarks.remote import Session


def raising(case):
    raise ValueError("no luck")


def raising_once(case):
    return raising(case) if case == "bad" else Session(lambda: 4.0)


def leaving(case):
    os._exit(7)


def importing(case):
    import not_there_at_all  # noqa: F401


def printing(case):
    os.write(1, b"hello")
    return Session(lambda: 4.0)
