"""python -m ernie2.serve MODEL [MODEL ...]: models over HTTP, with a page to try them at /.

MODEL: a fine-tuned model's folder, an export, or a pre-training checkpoint (fills [MASK]); NAME=FOLDER gives
it a name. POST /NAME {"inputs": [...]} answers {"predictions": [...]}. Inputs are {text_a, text_b} for
classes, numbers and tags, {context, question} for answers, {text, top_k} for [MASK]. What waits is computed
together, texts of like length in one batch. Beside them /health, /metrics (Prometheus), /openapi.json and
/docs. With ERNIE2_TOKEN in the environment all but / and /health need `Authorization: Bearer TOKEN`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from markupsafe import Markup
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ernie2 import logs
from ernie2.pages import HERE, environment
from ernie2.strict import ConfigError, cli

try:
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse
    from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
    from prometheus_client import Counter as Counts
    from starlette.requests import ClientDisconnect
    from uvicorn import Config, Server
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.stderr.write(f"error: {error}; pip install fastapi uvicorn prometheus_client\n")
    sys.exit(2)

MAX_BODY, MAX_TEXT, MAX_INPUTS = 1 << 20, 20_000, 64
MAX_WAITING = 1024
"""Inputs that may wait for one model; more are refused with 503."""
MAX_BATCH = 256
"""Inputs computed together; they are cut into micro-batches of like length."""
TOKEN = "ERNIE2_TOKEN"


def _well_formed(text: str) -> str:
    text.encode(
        "utf-8"
    )  # a lone surrogate, which JSON can spell, is no character; UnicodeError is a ValueError
    return text


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_well_formed)]


class Strict(BaseModel):
    """No key that is not known."""

    model_config = ConfigDict(extra="forbid")


class Single(Strict):
    """A text, or a pair of texts."""

    text_a: Text
    text_b: Text | None = None


class Question(Strict):
    """A question over a passage."""

    context: Text
    question: Text


class Cloze(Strict):
    """A text with [MASK] for each token that is wanted; adjacent ones are one word."""

    text: Text
    top_k: Annotated[int, Field(ge=1, le=20)] = 5


class Metrics:
    """What /metrics says."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counts(
            "ernie2_requests", "Requests by model and status.", ["model", "status"], registry=self.registry
        )
        self.inputs = Counts("ernie2_inputs", "Inputs computed.", ["model"], registry=self.registry)
        self.seconds = Histogram(
            "ernie2_request_seconds",
            "Seconds to an answer, refusals left out.",
            ["model"],
            registry=self.registry,
        )
        self.waiting = Gauge("ernie2_waiting", "Inputs that wait.", ["model"], registry=self.registry)


@dataclass
class Served:
    """A model behind a queue: what waits when it is free is computed together."""

    name: str
    kind: str
    about: str
    compute: Callable[[list[Any]], list[dict]]
    """Inputs of its kind -> predictions; raises ConfigError for an input it cannot read."""
    waiting: int = 0
    queue: asyncio.Queue = field(default_factory=asyncio.Queue)

    @property
    def form(self) -> type[Strict]:
        """What an input looks like."""
        return {"span": Question, "cloze": Cloze}.get(self.kind, Single)

    async def answer(self, inputs: list[Any]) -> list[dict]:
        """The predictions of a request's inputs. Raises HTTPException 503 where too many wait."""
        if self.waiting + len(inputs) > MAX_WAITING:
            raise HTTPException(503, f"{self.waiting} inputs wait already; try again", {"Retry-After": "1"})
        future = asyncio.get_running_loop().create_future()
        self.waiting += len(inputs)
        try:
            self.queue.put_nowait((inputs, future))
            return await future
        finally:
            self.waiting -= len(inputs)

    async def work(self, thread: ThreadPoolExecutor) -> None:
        """Takes what waits, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            taken = [await self.queue.get()]
            while not self.queue.empty() and sum(len(inputs) for inputs, _ in taken) < MAX_BATCH:
                taken.append(self.queue.get_nowait())
            taken = [one for one in taken if not one[1].cancelled()]
            try:
                found = await loop.run_in_executor(
                    thread, self.compute, [i for some, _ in taken for i in some]
                )
                for inputs, future in taken:
                    _settle(future, found[: len(inputs)])
                    found = found[len(inputs) :]
            except ConfigError:  # one of them: each by itself
                for inputs, future in taken:
                    await self._alone(loop, thread, inputs, future)
            except Exception as error:  # noqa: BLE001 - the service stays up, the request is told
                logs.logger.exception("%s failed", self.name)
                for _, future in taken:
                    _settle(future, HTTPException(500, type(error).__name__))

    async def _alone(self, loop: Any, thread: ThreadPoolExecutor, inputs: list[Any], future: Any) -> None:
        try:
            _settle(future, await loop.run_in_executor(thread, self.compute, inputs))
        except ConfigError as error:
            _settle(future, HTTPException(422, str(error)))


def _settle(future: asyncio.Future, result: Any) -> None:
    if future.done():  # who asked is gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def load(folder: Path, name: str) -> Served:
    """A model of any kind. Raises ConfigError: none there, or weights that do not fit."""
    from ernie2.serving import cloze, finetuned  # here, as they import paddle

    inner = folder / "best" if (folder / "best" / "config.json").is_file() else folder
    made = finetuned(inner) or cloze(folder)
    return Served(name, *made)


def build(models: Sequence[Served], token: str = "") -> FastAPI:
    """The application: one path a model, and what is said of all."""
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ThreadPoolExecutor(1) as thread:  # paddle computes in one thread, which uses all cores
            tasks = [asyncio.create_task(model.work(thread)) for model in models]
            yield
            for task in tasks:
                task.cancel()

    app = FastAPI(title="ernie2", description=__doc__.splitlines()[0], lifespan=lifespan)

    app.middleware("http")(_guard(token, metrics, {f"/{model.name}": model.name for model in models}))

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> Response:
        kept = [
            {key: one[key] for key in ("loc", "msg")} for one in error.errors()[:10]
        ]  # not the input itself
        return JSONResponse({"detail": kept}, 422)

    for model in models:
        _add(app, model, metrics)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """The models that answer."""
        return {"status": "ok", "models": {model.name: model.kind for model in models}}

    @app.get("/metrics")
    async def measured() -> Response:
        """Counters in Prometheus' form."""
        for model in models:
            metrics.waiting.labels(model.name).set(model.waiting)
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    css = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    page = environment().get_template("serve.html").render(models=models, css=css)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def root() -> str:
        return page

    return app


def _guard(token: str, metrics: Metrics, paths: Mapping[str, str]) -> Callable:
    """Lets requests through that have the token, if one is wanted, and no larger body than MAX_BODY; counts
    those for the models of `paths`, refused ones too."""

    async def admit(request: Request, call: Callable) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        free = not token or request.url.path in ("/", "/health")
        if not free and not hmac.compare_digest(given.encode(), token.encode()):
            return JSONResponse({"detail": f"Authorization: Bearer TOKEN is needed ({TOKEN})"}, 401)
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    return JSONResponse({"detail": f"a body has at most {MAX_BODY:,} bytes"}, 413)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        request._body = bytes(body)  # what the route reads
        return await call(request)

    async def guard(request: Request, call: Callable) -> Response:
        begin, model = time.perf_counter(), paths.get(request.url.path)
        reply = await admit(request, call)
        if model is not None:
            metrics.requests.labels(model, reply.status_code).inc()
            if reply.status_code == 200:
                metrics.seconds.labels(model).observe(time.perf_counter() - begin)
        return reply

    return guard


def _add(app: FastAPI, model: Served, metrics: Metrics) -> None:
    """The path of a model."""
    form = model.form

    class Body(Strict):
        inputs: Annotated[list[form], Field(min_length=1, max_length=MAX_INPUTS)]

    class Answer(BaseModel):
        model: str
        predictions: list[dict[str, Any]]

    Body.__name__ = f"{model.name}_body"

    async def predict(body: Body) -> Answer:
        found = await model.answer(body.inputs)
        metrics.inputs.labels(model.name).inc(len(found))
        return Answer(model=model.name, predictions=found)

    predict.__annotations__ = {"body": Body, "return": Answer}
    app.post(f"/{model.name}", summary=model.about)(predict)


def _named(argument: str) -> tuple[str, Path]:
    """NAME=FOLDER, or a folder whose own name serves."""
    name, _, folder = argument.rpartition("=")
    path = Path(folder)
    if not name:
        whole = path.resolve()
        name = re.sub(r"[^A-Za-z0-9_-]", "-", whole.parent.name if whole.name == "best" else whole.name)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in ("health", "metrics", "docs", "redoc"):
        raise ConfigError(
            f"model name {name!r}: letters, digits, - and _ are allowed, health and metrics are taken"
        )
    return name, path


@cli
def main(argv: Sequence[str]) -> None:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m ernie2.serve", description=__doc__, formatter_class=raw)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder, or NAME=FOLDER")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: %(default)s)")
    args = parser.parse_args(argv)
    named = [_named(argument) for argument in args.models]
    if twice := [name for name, count in Counter(name for name, _ in named).items() if count > 1]:
        raise ConfigError(f"two models are called {twice[0]!r}; say NAME=FOLDER")
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        door = socket.create_server((args.host, args.port), family=family)
        # asyncio does so for sockets that name their protocol; else an answer's second packet waits 40 ms
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"--host {args.host} --port {args.port}: {why}; choose another port") from None
    logs.setup(0)
    models = [load(folder, name) for name, folder in named]
    for model in models:
        logs.logger.info("/%s: %s", model.name, model.about)
    host = f"[{args.host}]" if ":" in args.host else args.host
    logs.logger.info("listening at http://%s:%d/ (Ctrl-C stops it)", host, door.getsockname()[1])
    config = Config(
        build(models, os.environ.get(TOKEN, "")), log_level="warning", timeout_graceful_shutdown=30
    )
    Server(config).run(sockets=[door])


if __name__ == "__main__":
    main()
