"""The one thread that runs the engine: jobs come in by a queue with a bound, news goes out once a step."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from tilewright.engine.engine import Engine
from tilewright.errors import ArgumentError, EngineFailure, ServerBusy, TilewrightError
from tilewright.serve.job import Delta, Job

News = Sequence[tuple[Job, Delta]]

_LOG = logging.getLogger("tilewright.serve")
_PATIENCE = 3  # steps that fail without one completion that ends well, after which the engine counts as broken


class Runner:
    """Feeds an engine with jobs. Every method may be called from any thread, and none waits for a step.

    `most_waiting`: how many jobs may wait beside those that run.
    """

    def __init__(self, engine: Engine, most_waiting: int) -> None:
        self._engine = engine
        self.most = engine.scheduler.max_batch + most_waiting
        """Jobs that may be here at once."""
        self.failures = 0
        """Steps that failed."""
        self._failed_in_a_row = 0
        self._changed = threading.Condition()
        self._arrived: list[Job] = []
        self._cancelled: list[Job] = []
        self._held: dict[Job, None] = {}  # all that are here, in their order
        self._closing = self._ending = False
        self._tell: Callable[[News], object] = lambda news: None
        self._thread: threading.Thread | None = None

    def start(self, tell: Callable[[News], object]) -> None:
        """Begin; `tell` is called in the engine's thread, once a step, with all that is new."""
        self._tell = tell
        self._thread = threading.Thread(target=self._run, name="tilewright-engine", daemon=True)
        self._thread.start()

    def check(self, jobs: int) -> None:
        """ArgumentError if there is never room for so many jobs at once."""
        if jobs > self.most:
            raise ArgumentError(
                f"the request asks for {jobs} completions and the server takes {self.most} at once; "
                "ask for fewer, or start it with a larger --max-queue"
            )

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue all of `jobs`, or none: ServerBusy where there is no room now, ArgumentError where there never is."""
        self.check(len(jobs))
        with self._changed:
            if self._closing:
                raise ServerBusy("the server is shutting down; send the request to another, or later")
            if len(self._held) + len(jobs) > self.most:
                raise ServerBusy(
                    f"{len(self._held)} completions run or wait already, of {self.most} that the server takes at once; "
                    "try again later, or start it with a larger --max-queue"
                )
            self._held.update(dict.fromkeys(jobs))
            self._arrived += jobs
            self._changed.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more: their rows are free after the step under way. Ended ones are let be."""
        with self._changed:
            gone = [job for job in jobs if job in self._held and not job.cancelled]
            for job in gone:
                job.cancelled = True
            self._cancelled += gone
            if gone:
                self._changed.notify()

    def close(self) -> None:
        """Take no more jobs; those that are here go on."""
        with self._changed:
            self._closing = True

    def end(self) -> None:
        """The thread ends after the step under way; jobs that are still here are told so."""
        with self._changed:
            self._closing = self._ending = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join()

    @property
    def healthy(self) -> bool:
        """Whether the thread lives, takes jobs, and ends them well."""
        alive = self._thread is not None and self._thread.is_alive()
        return alive and not self._closing and self._failed_in_a_row < _PATIENCE

    @property
    def held(self) -> int:
        """How many jobs are here."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many of them have not begun."""
        return len(self._arrived) + len(self._engine.scheduler.waiting)

    # ------------------------------------------------------------------------------- in the engine's thread
    def _run(self) -> None:
        failure: TilewrightError = EngineFailure("the engine's thread failed; see the server's log, and restart it")
        try:
            while self._take():
                self._report(self._step())
            failure = ServerBusy("the server is shutting down; send the request again, later or to another")
        except BaseException:
            _LOG.exception("the engine's thread failed")
        finally:
            self._end(failure)

    def _take(self) -> bool:
        """Wait until there is something to do, and take in who came and went; False at the end."""
        with self._changed:
            while not (self._held or self._cancelled or self._ending):
                self._changed.wait()
            if self._ending:
                return False
            arrived, self._arrived = self._arrived, []
            gone, self._cancelled = self._cancelled, []
            for job in gone:
                self._held.pop(job, None)
        for job in gone:
            if job.request is not None:
                self._engine.abort(job.request)
        for job in arrived:
            if not job.cancelled:
                self._add(job)
        return True

    def _add(self, job: Job) -> None:
        try:
            job.request = self._engine.add(job.prompt_ids, job.params)
        except TilewrightError as error:
            self._send([(job, Delta(error=error))])

    def _step(self) -> TilewrightError | None:
        """One step of the engine; what went wrong in it."""
        if self._engine.scheduler.idle:
            return None
        try:
            self._engine.step()
        except Exception as error:
            _LOG.exception("a step of the engine failed; the requests in it are ended")
            self.failures += 1
            self._failed_in_a_row += 1
            return EngineFailure(f"the engine failed: {error}; the server's log says where")
        return None

    def _report(self, failure: TilewrightError | None) -> None:
        with self._changed:
            begun = [job for job in self._held if job.request is not None and not job.cancelled]
        self._send([(job, delta) for job in begun if (delta := job.news(failure)) is not None])

    def _send(self, news: News) -> None:
        with self._changed:
            for job, delta in news:
                if delta.last:
                    self._held.pop(job, None)
                if delta.finish_reason is not None:
                    self._failed_in_a_row = 0
        if news:
            self._tell(news)

    def _end(self, failure: TilewrightError) -> None:
        with self._changed:
            self._closing = True
            left = list(self._held)
            self._held.clear()
        for job in left:
            if job.request is not None:
                self._engine.abort(job.request)
        self._send([(job, Delta(error=failure)) for job in left if not job.cancelled])


__all__ = ["News", "Runner"]
