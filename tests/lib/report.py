# SPDX-License-Identifier: Apache-2.0
"""Counts results and prints them: a PASS, FAIL or SKIP line each, `N passed, N failed` last."""
import sys
import time
import traceback


class Skip(Exception):
    """Raised by a case that cannot run here; the reason is printed."""


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def ok(self, name, note=""):
        self.passed += 1
        print(f"PASS {name}{' ' + note if note else ''}", flush=True)

    def fail(self, name, why):
        self.failed += 1
        print(f"FAIL {name}: {why}", flush=True)

    def skip(self, name, why):
        self.skipped += 1
        print(f"SKIP {name}: {why}", flush=True)

    def run(self, name, function, *args):
        """One case: an exception is a failure. The function may report finer cases itself."""
        start = time.monotonic()
        try:
            function(*args)
        except Skip as e:
            self.skip(name, e)
        except AssertionError as e:
            where = traceback.extract_tb(e.__traceback__)[-1]
            self.fail(name, f"{e or where.line} ({where.name}:{where.lineno})")
        except Exception as e:  # a broken case must not hide the others
            where = traceback.extract_tb(e.__traceback__)[-1]
            self.fail(name, f"{type(e).__name__}: {e} ({where.name}:{where.lineno})")
        else:
            self.ok(name, f"({time.monotonic() - start:.1f} s)")

    def finish(self):
        """Prints the summary and gives the exit status. Nothing run at all is a failure too."""
        tail = f", {self.skipped} skipped" if self.skipped else ""
        print(f"{self.passed} passed, {self.failed} failed{tail}", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)
