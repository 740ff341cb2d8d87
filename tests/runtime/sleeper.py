"""A worker that answers after as many seconds as a job says, without using a processor."""

import time

from tilewright.runtime.child import serve


def handler(job):
    time.sleep(job.get("sleep", 0.0))
    return {}


if __name__ == "__main__":
    serve(handler)
