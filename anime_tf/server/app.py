"""The server's addresses, those of TensorFlow Serving:

    GET  /v1/models/NAME[/versions/1]             is it there?
    GET  /v1/models/NAME[/versions/1]/metadata    what does it take and give?
    POST /v1/models/NAME[/versions/1]:predict     answer

Errors are `{"error": "..."}`.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from anime_tf.server import payloads
from anime_tf.server.errors import BusyError, RequestError
from anime_tf.server.limits import Intake, answer_in_time
from anime_tf.server.signatures import VERSION, ServedModel


def build_app(
    models: Sequence[ServedModel], intake: Intake, more: Sequence[BaseRoute] = ()
) -> Starlette:
    """Builds the application.

    Args:
        models: At least one.
        intake: With the limits that the models were given.
        more: Routes of something else beside them.
    """
    api = _Api(models, intake)
    routes = list(more)
    for place in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
        routes += [
            Route(f"{place}:predict", api.predict, methods=["POST"]),
            Route(f"{place}/metadata", api.metadata),
            Route(place, api.status),
        ]
    handlers = {
        RequestError: _explain,
        HTTPException: _explain_http,
        ClientDisconnect: _give_up,
        Exception: _apologise,
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=api.lifespan)


class _Api:
    def __init__(self, models: Sequence[ServedModel], intake: Intake):
        self._models = {model.name: model for model in models}
        self._intake = intake

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for model in self._models.values():
                await model.start()
                stack.push_async_callback(model.stop)
            yield

    async def status(self, request: Request) -> Response:
        return _json(self._find(request).status())

    async def metadata(self, request: Request) -> Response:
        return _json(self._find(request).metadata())

    async def predict(self, request: Request) -> Response:
        model = self._find(request)
        async with self._intake.receive(request) as body:
            call = payloads.parse(body, model)
            answer = call.signature.answer(**call.inputs)
            outputs = await answer_in_time(answer, self._intake.limits)
            return _respond(payloads.dump(call, outputs))

    def _find(self, request: Request) -> ServedModel:
        name = request.path_params["name"]
        version = request.path_params.get("version", VERSION)
        if name not in self._models or version != VERSION:
            known = ", ".join(self._models)
            raise RequestError(
                404,
                f"there is no version {version} of a model {name!r} here; "
                f"there is version {VERSION} of: {known}",
            )
        return self._models[name]


def _explain(request: Request, error: RequestError) -> Response:
    response = _json({"error": error.message}, error.status)
    if isinstance(error, BusyError):
        response.headers["Retry-After"] = "1"
    # Refused before its end was read.
    if error.status in (408, 413) or isinstance(error, BusyError):
        response.headers["Connection"] = "close"
    return response


def _explain_http(request: Request, error: HTTPException) -> Response:
    message = f"{error.detail}: {request.method} {request.url.path}"
    response = _json({"error": message}, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _give_up(request: Request, error: ClientDisconnect) -> Response:
    # Nobody will read it.
    return _json({"error": "the client went away"}, 400)


def _apologise(request: Request, error: Exception) -> Response:
    return _json({"error": "the server failed; its log says why"}, 500)


def _json(content: dict, status: int = 200) -> Response:
    return _respond(payloads.to_bytes(content), status)


def _respond(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
