"""`python -m tests.fuzz [--seconds N] [--case K] [READER ...]`: feed damaged files to readers until the time is over.

A reader may refuse a file, with an error that the library raises or an OSError; it may also find nothing wrong.  It must not
raise anything else, crash, hang, take more memory than some times the size of the file, or write outside its folder.
Each reader works in a process of its own, so that a crash is seen.  A finding is shown with the number of its case, which
`--case` repeats.
"""

import argparse
import faulthandler
import importlib.util
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from pathlib import Path

from keydnn.domain.errors import KeyDNNError
from tests.fuzz.mutations import case
from tests.fuzz.readers import READERS

SLACK = 32 * 2**20  # bytes that any reader may take
PATIENCE = 20  # seconds for one file


class Hang(Exception):
    """A file took too long."""


def _give_up(number, frame):
    raise Hang


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def is_ours(error):
    """Whether the library's own code said `raise`, so that somebody thought about the message."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "keydnn" in Path(frame.filename).parts and (frame.line or "").startswith("raise ")


def attempt(reader, data, home):
    """What is wrong with how a reader treats these bytes; None if nothing is."""
    arena = home / "arena"
    (arena / "target").mkdir(parents=True, exist_ok=True)
    path = arena / f"file{reader.suffix}"
    path.write_bytes(data)
    before = [p for p in tree(home) if not p.startswith("arena/target/")]
    tracemalloc.start()
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        reader.read(path, arena / "target")
    except (KeyDNNError, OSError):
        pass
    except (ValueError, TypeError, RuntimeError) as error:
        if not is_ours(error):
            return traceback.format_exc(limit=-4)
    except Hang:
        return f"took more than {PATIENCE} s"
    except Exception:  # noqa: BLE001  that is what is looked for
        return traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if peak > reader.factor * len(data) + SLACK:
        return f"took {peak:,} bytes for a file of {len(data):,}"
    after = [p for p in tree(home) if not p.startswith("arena/target/")]
    return None if after == before else f"wrote outside its folder: {sorted(set(after) ^ set(before))}"


def work(reader, seconds, first, most):
    """Cases of one reader until the time is over; prints findings, returns their number."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    if importlib.util.find_spec("threadpoolctl") is not None:  # the pools of OpenMP do not survive a fork
        importlib.import_module("threadpoolctl").threadpool_limits(1)
    signal.signal(signal.SIGALRM, _give_up)
    sys.setrecursionlimit(1000)
    found, done, end, seen = 0, 0, time.monotonic() + seconds, set()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        (home / "good").mkdir()
        samples = reader.samples(home / "good")
        for sample in samples:  # the good files are good
            if (problem := attempt(reader, sample, home)) is not None:
                print(f"{reader.name}: a good file: {problem}", flush=True)
                found += 1
        while time.monotonic() < end and done < most:
            number = first + done
            (home / "number").write_text(str(number))
            os.environ["FUZZ_CASE"] = str(number)
            problem = attempt(reader, case(samples, number), home)
            done += 1
            if problem is not None and (kind := re.sub(r"\d+", "#", problem.strip().splitlines()[-1])[:60]) not in seen:
                seen.add(kind)
                found += 1
                print(f"{reader.name}, case {number}: {problem}", flush=True)
    print(f"{reader.name}: {done} files, {found} findings", flush=True)
    sys.exit(min(found, 100))


def fuzz(readers, seconds, first=0, most=sys.maxsize):
    """Number of findings over readers, a crash counting as one."""
    total = 0
    for reader in readers:
        process = multiprocessing.get_context("fork").Process(target=work, args=(reader, seconds, first, most))
        process.start()
        process.join()
        if process.exitcode and process.exitcode < 0:
            print(f"{reader.name}: crashed with {signal.Signals(-process.exitcode).name}", flush=True)
        total += abs(process.exitcode or 0)
    return total


def main():
    parser = argparse.ArgumentParser(prog="./dev fuzz", description="Feed damaged files to everything that reads files.")
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(r.name for r in READERS)}; default: all")
    parser.add_argument("--seconds", type=float, default=300, help="per reader (default: 300)")
    parser.add_argument("--case", type=int, help="only this case")
    chosen = parser.parse_args()
    if unknown := set(chosen.readers) - {r.name for r in READERS}:
        parser.error(f"no reader {', '.join(unknown)}; there are {', '.join(r.name for r in READERS)}")
    readers = [r for r in READERS if not chosen.readers or r.name in chosen.readers]
    start, most = (0, sys.maxsize) if chosen.case is None else (chosen.case, 1)
    return 1 if fuzz(readers, chosen.seconds, start, most) else 0


if __name__ == "__main__":
    sys.exit(main())
