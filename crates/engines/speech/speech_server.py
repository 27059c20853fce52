"""The HTTP side, as an ASGI application: who may ask, what is asked, and answers that leave as they are made.

There is no framework between, for every answer needs to know at once when its client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from speech_jobs import END, Job, Refused, Worker, stopping

if TYPE_CHECKING:
    from speech_hearing import Hearing
    from speech_speaking import Speaking

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Bytes of a request's body: a path and some options, or a text to say.
_MOST_BODY = 1_000_000
#: Seconds without a line before one is sent as a sign of life (audio contract 7.2).
_SIGN_OF_LIFE_S = 10.0


class State:
    """What the program is doing; one for the whole process."""

    def __init__(self, token: str) -> None:
        self.token = token.encode()
        self.worker = Worker()
        self.stopping = False
        self.error: str | None = None
        #: The loaded model, once it is there.
        self.loaded: Hearing | Speaking | None = None


class App:
    """The application."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._routes: dict[tuple[str, str], Callable[[_Exchange], Awaitable[None]]] = {
            ("GET", "/health"): self._health,
            ("GET", "/stats"): self._stats,
            ("GET", "/voices"): self._voices,
            ("POST", "/transcribe"): self._transcribe,
            ("POST", "/speak"): self._speak,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send)
        try:
            if scope["path"] != "/health" and not self._may(scope):
                raise Refused(401, "invalid_api_key", "The key is missing or wrong.")
            route = self._routes.get((scope["method"], scope["path"]))
            if route is None:
                raise Refused(404, "not_found", f"There is no {scope['method']} {scope['path']}.")
            await route(exchange)
        except Refused as refused:
            await exchange.refuse(refused)

    def _may(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, b"Bearer " + self._state.token)

    async def _health(self, exchange: _Exchange) -> None:
        state = self._state
        if state.error is not None:
            await exchange.answer(503, {"status": "error", "error": state.error})
        elif state.stopping:
            await exchange.answer(503, {"status": "stopping"})
        elif state.loaded is None:
            await exchange.answer(503, {"status": "loading"})
        else:
            await exchange.answer(200, {"status": "ready", **state.loaded.facts})

    async def _stats(self, exchange: _Exchange) -> None:
        worker = self._state.worker
        stuck = worker.stuck
        await exchange.answer(
            503 if stuck else 200,
            {
                "status": "stuck" if stuck else "ok",
                "running": worker.running,
                "queued": worker.queued,
                **worker.counts,
                "audio_seconds": round(worker.audio_seconds, 3),
                "processing_seconds": round(worker.processing_seconds, 3),
                "real_time_factor": round(worker.processing_seconds / worker.audio_seconds, 4)
                if worker.audio_seconds
                else None,
                "rss_bytes": _resident(),
            },
        )

    async def _voices(self, exchange: _Exchange) -> None:
        await exchange.answer(200, {"voices": getattr(self._loaded(), "voices", [])})

    async def _transcribe(self, exchange: _Exchange) -> None:
        hearing: Any = self._loaded()
        if not hasattr(hearing, "hear"):
            raise Refused(400, "model_not_supported", "This engine speaks; it cannot transcribe.")
        from speech_hearing import Request

        request = Request.parse(await exchange.json())

        def work(job: Job) -> None:
            self._state.worker.audio_seconds += hearing.hear(request, job)

        await exchange.stream_lines(self._state.worker.start(work))

    async def _speak(self, exchange: _Exchange) -> None:
        speaking: Any = self._loaded()
        if not hasattr(speaking, "say"):
            raise Refused(400, "model_not_supported", "This engine transcribes; it cannot speak.")
        from speech_encoding import FORMATS
        from speech_speaking import Request

        request = Request.parse(await exchange.json())

        def work(job: Job) -> None:
            self._state.worker.audio_seconds += speaking.say(request, job)

        await exchange.stream_bytes(self._state.worker.start(work), FORMATS[request.format].content_type)

    def _loaded(self) -> Hearing | Speaking:
        if self._state.stopping:
            raise stopping()
        if self._state.loaded is None:
            raise Refused(503, "engine_starting", "The speech engine is still loading its model.")
        return self._state.loaded


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send

    async def json(self) -> Any:
        """The body. Raises `Refused` when it is too long or no JSON."""
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "invalid_value", "The request was cut off.")
            body += message.get("body", b"")
            if len(body) > _MOST_BODY:
                raise Refused(413, "request_too_large", f"The request is longer than {_MOST_BODY} bytes.")
            more = message.get("more_body", False)
        try:
            return json.loads(body)
        except ValueError as error:
            raise Refused(400, "invalid_value", f"The request is no JSON: {error}.") from error

    async def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        await self._start(status, "application/json", len(data))
        await self._send({"type": "http.response.body", "body": data})

    async def refuse(self, refused: Refused) -> None:
        await self.answer(refused.status, {"error": {"code": refused.code, "message": refused.message}})

    async def stream_lines(self, job: Job) -> None:
        """Answer with the job's events, one JSON object per line."""
        async with self._watched(job):
            event = await job.take()
            if isinstance(event, Refused):
                raise event
            await self._start(200, "application/x-ndjson")
            progress = 0.0
            while event is not END:
                if event is None:
                    event = {"event": "progress", "progress": progress}
                elif isinstance(event, Refused):
                    event = {"event": "error", "code": event.code, "message": event.message}
                    await self._line(event)
                    break
                elif event["event"] == "progress":
                    progress = event["progress"]
                await self._line(event)
                event = await job.take(_SIGN_OF_LIFE_S)
            await self._send({"type": "http.response.body", "body": b""})

    async def stream_bytes(self, job: Job, content_type: str) -> None:
        """Answer with the bytes that the job makes."""
        async with self._watched(job):
            made = await job.take()
            if isinstance(made, Refused):
                raise made
            await self._start(200, content_type)
            while made is not END:
                if isinstance(made, Refused):
                    # The status is sent, so a cut is the only way to tell.
                    raise ConnectionAbortedError(made.message)
                await self._send({"type": "http.response.body", "body": made, "more_body": True})
                made = await job.take()
            await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, content_type: str, length: int | None = None) -> None:
        headers = [(b"content-type", content_type.encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _line(self, event: dict[str, Any]) -> None:
        line = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        await self._send({"type": "http.response.body", "body": line.encode(), "more_body": True})

    @contextlib.asynccontextmanager
    async def _watched(self, job: Job) -> Any:
        """Cancel the job when the client leaves or the answer ends early."""
        answering = asyncio.current_task()

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            job.cancel()
            if answering is not None:
                answering.cancel()

        watching = asyncio.ensure_future(watch())
        try:
            yield
        except asyncio.CancelledError:
            # The client left: there is no one to answer.
            if not job.cancelled:
                raise
        finally:
            watching.cancel()
            job.cancel()


def _resident() -> int | None:
    """Bytes of memory in use, where that is easy to tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
