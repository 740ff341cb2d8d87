"""A process that holds temporary folders, one of them of a search in the middle of its work, until it is killed."""

from __future__ import annotations

import sys
import time

from tilewright.runtime.scratch import Scratch
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import TrialRunner

if __name__ == "__main__":
    subject = Subject.of("softmax", {"M": 4, "D": 16}, "f32", threads=1)
    with TrialRunner(subject) as runner:
        kept = Scratch("background")
        print(runner._scratch.path, kept.path, flush=True)
        time.sleep(float(sys.argv[1]))
