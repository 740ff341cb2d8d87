"""The server: `Server(llm).run()` until a signal ends it, or `with Server(llm, port=0) as server:` beside a program."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import math
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from tilewright.errors import ArgumentError, MissingPackage
from tilewright.serve.runner import Runner
from tilewright.serve.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from tilewright.engine.llm import LLM

_LAST_WORDS = 10  # seconds for clients to read that the server ends
_PACKAGES = ("starlette", "uvicorn", "prometheus_client")


class Server:
    """A model behind OpenAI's protocol, at `url`. The port is taken at once, and answers once the server runs.

    `settings` are those of `Settings`; the model's name is that of its folder if none is given. `held` is a socket of
    `listen`, where the address was taken before. Raises MissingPackage without the packages of the extra `serve`,
    ArgumentError for a setting out of range or an address that cannot be taken, ModelError for a model without a
    tokenizer.
    """

    def __init__(self, llm: LLM, *, held: socket.socket | None = None, **settings: Any) -> None:
        check_packages()
        self.settings = Settings(**{"name": model_name(llm), **settings})
        self.runner = Runner(llm.engine, self.settings.max_queue)
        from tilewright.serve.app import Service

        self._app = Service(llm, self.runner, self.settings).app()
        self._socket = listen(self.settings.host, self.settings.port) if held is None else held
        self._server = self._made()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What clients call the base URL: http://HOST:PORT/v1."""
        host, port = self._address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def run(self, ready: Callable[[], object] = lambda: None, ending: Callable[[], object] = lambda: None) -> None:
        """Serve until SIGINT or SIGTERM; running requests may end, for `grace` seconds or until a second signal.

        A third waits for nothing. `ready` is called when requests are answered, `ending` at the first signal.
        """
        self._server.ready, self._server.ending = ready, ending
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self.runner.end()
            if not (self._server.hurried or self._server.force_exit):
                self.runner.join()

    def __enter__(self) -> Server:
        """Serve in a thread of this process."""
        there = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(there.set,), name="tilewright-server", daemon=True)
        self._thread.start()
        while not there.wait(0.1):
            if not self._thread.is_alive():
                raise ArgumentError(f"the server at {self.url} did not start; see what it wrote to stderr")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop once running requests have ended, or `grace` seconds are over."""
        self._server.should_exit = True
        assert self._thread is not None
        self._thread.join()

    def _made(self) -> Any:
        import uvicorn

        config = uvicorn.Config(
            self._app,
            log_config=None,
            log_level="info" if self.settings.access_log else "warning",
            access_log=self.settings.access_log,
            ws="none",
            lifespan="on",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=math.ceil(self.settings.grace) + _LAST_WORDS,
        )
        self._address: tuple[str, int] = self._socket.getsockname()[:2]
        return _uvicorn_server()(config, self.runner, self.settings.grace)


def _uvicorn_server() -> type[Any]:
    """uvicorn's server, which ends by itself at a signal, and has requests end first."""
    import uvicorn

    class Graceful(uvicorn.Server):
        def __init__(self, config: uvicorn.Config, runner: Runner, grace: float) -> None:
            super().__init__(config)
            self._runner, self._grace, self._cut, self.hurried = runner, grace, False, False
            self._loop: asyncio.AbstractEventLoop | None = None
            self.ready: Callable[[], object] = lambda: None
            self.ending: Callable[[], object] = lambda: None

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            self._loop = asyncio.get_running_loop()
            await super().startup(sockets)
            self.ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            self._runner.close()
            self.ending()
            loop = asyncio.get_running_loop()
            end = loop.call_later(self._grace, self._runner.end)
            await super().shutdown(sockets)
            end.cancel()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # uvicorn raises what it caught again once it has ended; a server that ended as told ends with 0.
            if not self.should_exit:
                self.should_exit = True
            elif not self._cut:
                self._cut = True
                self._runner.end()  # requests are told so
            elif not self.hurried and self._loop is not None:
                self.hurried = True
                self._loop.call_soon_threadsafe(self._hang_up)
            else:
                self.force_exit = True

        def _hang_up(self) -> None:
            # Not left to `force_exit`: from Python 3.12 on, asyncio waits for open connections nevertheless.
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    return Graceful


def check_packages() -> None:
    """MissingPackage unless all that a server needs is installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackage(f"the server needs {', '.join(missing)}: pip install 'tilewright[serve]'")


def model_name(llm: LLM) -> str:
    """What clients call a model by default: the name of its folder, `tilewright` for the one that ships."""
    from tilewright.engine.llm import SHIPPED

    return "tilewright" if llm.folder == SHIPPED else llm.folder.resolve().name


def listen(host: str, port: int) -> socket.socket:
    """A socket that holds the port, and refuses connections until a server listens; ArgumentError if it is taken."""
    if not 0 <= port <= 65535:
        raise ArgumentError(f"port is {port}; it must be from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ArgumentError(f"host {host!r}: {error.strerror}; give an address of this machine with --host") from None
    try:
        if sys.platform != "win32":  # where it would share the port with others
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise ArgumentError(
            f"port {port} of {host} cannot be taken ({error.strerror}); give another with --port, 0 for a free one"
        ) from None
    return made


def log_requests() -> None:
    """A line on stderr for each request from now on."""
    logger, shown = logging.getLogger("uvicorn.access"), logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(shown)
    logger.setLevel(logging.INFO)


__all__ = ["Server", "check_packages", "listen", "log_requests", "model_name"]
