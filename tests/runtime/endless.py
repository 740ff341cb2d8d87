"""A worker that answers its setup, and then never again."""

import os
import sys

from tilewright.runtime.child import serve

_jobs = 0


def handler(_job):
    global _jobs
    _jobs += 1
    while _jobs > 1:
        pass
    return {"pid": os.getpid()}


if __name__ == "__main__":
    assert sys.argv[1:]
    serve(handler)
