"""The routes: an ASGI application over one model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tilewright import __version__
from tilewright.errors import TilewrightError
from tilewright.serve.answer import Answer, ChatAnswer, CompletionAnswer
from tilewright.serve.ask import Ask, chat_ask, completion_ask, tokens_of
from tilewright.serve.guard import Guard, answer, read_json
from tilewright.serve.job import Job
from tilewright.serve.metrics import Metrics
from tilewright.serve.problem import Problem
from tilewright.serve.reply import Events, Inbox, Reply
from tilewright.serve.runner import News, Runner
from tilewright.serve.text import detokenize, tokenize
from tilewright.serve.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tilewright.engine.llm import LLM
    from tilewright.engine.sampling import SamplingParams
    from tilewright.serve.fields import Body
    from tilewright.serve.settings import Settings

Understood = tuple[Ask, list[list[int]], float]


class Service:
    """One model behind HTTP: its routes, and what they share."""

    def __init__(self, llm: LLM, runner: Runner, settings: Settings) -> None:
        self.llm, self.runner, self.settings = llm, runner, settings
        self.metrics = Metrics(runner)
        self._vocabulary = Vocabulary(llm.tokenizer)
        self._created = int(time.time())

    def app(self) -> Starlette:
        """The application; its lifespan starts and stops the engine's thread."""
        gets = {
            "/": self.index,
            "/health": self.health,
            "/metrics": self.metrics_text,
            "/version": self.version,
            "/v1/models": self.models,
            "/v1/models/{name:path}": self.model,
        }
        posts = {
            "/v1/completions": self.completions,
            "/v1/chat/completions": self.chat,
            "/tokenize": self.tokenize,
            "/detokenize": self.detokenize,
        }
        routes = [
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()),
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
        ]
        guard = Middleware(Guard, key=self.settings.api_key, paths=[*gets, *posts], metrics=self.metrics)
        origins = list(self.settings.allow_origins)
        cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=["*"])
        handlers: dict[Any, Any] = {
            Problem: _on_problem,
            TilewrightError: _on_problem,
            HTTPException: _on_http,
            ClientDisconnect: _on_left,
            Exception: _on_defect,
        }
        middleware = [cors, guard] if origins else [guard]
        return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=self._alive)

    @asynccontextmanager
    async def _alive(self, app: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def tell(news: News) -> None:
            with suppress(RuntimeError):  # the loop is closed already: nobody listens
                loop.call_soon_threadsafe(_spread, news)

        self.runner.start(tell)
        try:
            yield
        finally:
            self.runner.end()

    # ------------------------------------------------------------------------------------------ completions
    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        ask, prompts, begun = await self._understood(request, completion_ask)
        reply = CompletionAnswer(*self._of_answer(ask, prompts))
        if ask.echo:
            decode = self.llm.tokenizer.decode
            texts = [p if isinstance(p, str) else decode(p) for p in ask.prompts]
            reply.echoes = [text for text in texts for _ in range(ask.n)]
        return self._reply(ask, prompts, reply, begun)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        ask, prompts, begun = await self._understood(request, chat_ask)
        return self._reply(ask, prompts, ChatAnswer(*self._of_answer(ask, prompts)), begun)

    async def _understood(self, request: Request, read: Callable[[Body, SamplingParams], Ask]) -> Understood:
        """What a body asks for, its prompts as tokens, and since when: in a thread, for long prompts take long."""
        body, begun = await self._body(request), time.perf_counter()

        def understood() -> Understood:
            ask = read(body, self.llm.default_params)
            self.runner.check(ask.choices)
            return ask, tokens_of(ask, self.llm), begun

        return await asyncio.to_thread(understood)

    def _of_answer(self, ask: Ask, prompts: Sequence[Sequence[int]]) -> tuple[str, Vocabulary, int, int, int | None]:
        choices, read = len(prompts) * ask.n, sum(map(len, prompts))
        return self.settings.name, self._vocabulary, choices, read, ask.params.logprobs

    def _reply(self, ask: Ask, prompts: Sequence[Sequence[int]], made: Answer, begun: float) -> Response:
        wanted = [(ids, ask.params_of(i)) for ids in prompts for i in range(ask.n)]
        inbox = Inbox(len(wanted))
        jobs = [Job(ids, params, inbox.hear, index, ask.stream, begun) for index, (ids, params) in enumerate(wanted)]
        of = (self.runner, jobs, inbox, made, self.metrics)
        return Events(*of, include_usage=ask.include_usage) if ask.stream else Reply(*of)

    # ------------------------------------------------------------------------------------------ text and tokens
    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        body = await self._body(request)
        return JSONResponse(await asyncio.to_thread(tokenize, body, self.llm))

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        body = await self._body(request)
        return JSONResponse(await asyncio.to_thread(detokenize, body, self.llm))

    async def _body(self, request: Request) -> dict[str, Any]:
        """The body of a request to the model that is served here."""
        body = await read_json(request, self.settings.max_body)
        self._check_model(body.get("model"))
        return body

    def _check_model(self, name: object) -> None:
        if name is not None and name != self.settings.name:
            raise Problem(
                f"the model {str(name)[:100]!r} is not here; this server has {self.settings.name!r}",
                status=404,
                param="model",
                code="model_not_found",
            )

    # ----------------------------------------------------------------------------------------------- about it
    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self._check_model(request.path_params["name"])
        return JSONResponse(self._card())

    def _card(self) -> dict[str, Any]:
        return {
            "id": self.settings.name,
            "object": "model",
            "created": self._created,
            "owned_by": "tilewright",
            "max_model_len": self.llm.context,
        }

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while requests are taken and steps succeed, else 503."""
        if self.runner.healthy:
            return JSONResponse({"status": "ok"})
        raise Problem("the engine failed, or the server is shutting down; see its log", status=503, code="unhealthy")

    async def metrics_text(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(await asyncio.to_thread(self.metrics.text), media_type="text/plain; version=0.0.4")

    async def version(self, request: Request) -> Response:
        """GET /version."""
        return JSONResponse({"version": __version__})

    async def index(self, request: Request) -> Response:
        """GET /: where to go."""
        paths = [route.path for route in request.app.routes if isinstance(route, Route)]
        return JSONResponse({"tilewright": __version__, "model": self.settings.name, "paths": paths})


def _spread(news: News) -> None:
    for job, delta in news:
        job.hear(job, delta)


async def _on_problem(request: Request, error: Exception) -> Response:
    """A request that is refused, or an error of the engine."""
    assert isinstance(error, (Problem, TilewrightError)), error
    return answer(Problem.of(error) if isinstance(error, TilewrightError) else error)


async def _on_http(request: Request, error: HTTPException) -> Response:
    """A path or a method that is not there."""
    what = f"{request.method} {request.url.path[:100]}"
    says = {404: f"there is no {what}; GET / lists what there is", 405: f"{what}: use another method"}
    message = says.get(error.status_code, str(error.detail))
    response = answer(
        Problem(message, status=error.status_code, code="not_found" if error.status_code == 404 else None)
    )
    response.headers.update(error.headers or {})
    return response


async def _on_left(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client left while it sent its body: nobody reads this


async def _on_defect(request: Request, error: Exception) -> Response:
    return answer(Problem("the server failed; its log says where", status=500, code="internal_error"))


__all__ = ["Service"]
