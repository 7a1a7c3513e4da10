"""Runs checks at every rank: those of a program that calls all_checks(), except those that its arguments name; or those
of several programs, in one start of the ranks: python checking.py exchanges training. Checks that all ranks have passed
are named on the standard output."""

import importlib
import sys

import __main__
from minicnn import distributed


def all_checks(*programs):
    workers = distributed.start(limit=30.0)
    for program in programs or [__main__]:
        for name, check in list(vars(program).items()):
            if name.startswith("check_") and name not in sys.argv:
                check(workers)
                workers.gather(None)
                if workers.rank == 0:
                    print(f"passed: {name}", flush=True)


if __name__ == "__main__":
    names = sys.argv[1:]
    del sys.argv[1:]
    all_checks(*map(importlib.import_module, names))
