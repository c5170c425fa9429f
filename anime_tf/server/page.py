"""A page to play with, and what it asks the server for:

    GET  /                   the page
    GET  /page/FILE          its parts
    GET  /page/facts         what is served
    POST /page/recognise     a picture file -> names, and what spoke for them
    POST /page/draw          {"character", "seed", "count", "truncation"} -> drawings
    POST /page/way           {"character", "seeds", "truncation"} -> a GIF between two

The page brings all that it needs: no script, style or font is loaded from elsewhere,
and browsers are told not to.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from anime_tf import pages, sheets
from anime_tf.prediction import Prediction
from anime_tf.server import payloads
from anime_tf.server.errors import RequestError
from anime_tf.server.generator import to_png
from anime_tf.server.limits import Intake, answer_in_time
from anime_tf.server.loading import Services
from anime_tf.server.signatures import Tensor

_STATIC = Path(__file__).parent / "static"
# Names that are shown for a picture.
_NAMES = 5
# Pictures from one seed to the other, and their time in the GIF.
_FRAMES = 16
_SECONDS = 0.08
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A page of an older version would ask for what is no more.
    "Cache-Control": "no-cache",
}


def build_page(services: Services, intake: Intake) -> list[BaseRoute]:
    """Returns the routes of the page, for `app.build_app`."""
    page = _Page(services, intake)
    return [
        Route("/", page.index),
        Route("/page/facts", page.facts),
        Route("/page/recognise", page.recognise, methods=["POST"]),
        Route("/page/draw", page.draw, methods=["POST"]),
        Route("/page/way", page.way, methods=["POST"]),
        Mount("/page", _Files(directory=_STATIC)),
    ]


class _Files(StaticFiles):
    def file_response(self, *arguments, **options) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers.update(_HEADERS)
        return response


class _Page:
    def __init__(self, services: Services, intake: Intake):
        self._classifier, self._generator = services.classifier, services.generator
        self._explainer = services.explainer
        self._intake, self._limits = intake, intake.limits

    async def index(self, request: Request) -> Response:
        return FileResponse(_STATIC / "index.html", headers=_HEADERS)

    async def facts(self, request: Request) -> Response:
        drawn = list(self._generator.drawer.drawn) if self._generator else []
        return _json(
            {
                "recognises": self._classifier is not None,
                "drawn": drawn,
                "most": self._limits.pictures,
            }
        )

    async def recognise(self, request: Request) -> Response:
        if not self._classifier:
            raise RequestError(404, "there is no classifier here")
        async with self._intake.receive(request) as body:
            answer = self._recognise(bytes(body))
            return _json(await answer_in_time(answer, self._limits))

    async def draw(self, request: Request) -> Response:
        async with self._asked(request) as content:
            noise = self._generator.noise(
                _number(content, "count"), _number(content, "seed"), _share(content)
            )
            return _json(await answer_in_time(self._draw(content, noise), self._limits))

    async def way(self, request: Request) -> Response:
        async with self._asked(request) as content:
            answer = self._way(content, _seeds(content), _share(content))
            gif = await answer_in_time(answer, self._limits)
            return Response(gif, media_type="image/gif")

    @asynccontextmanager
    async def _asked(self, request: Request) -> AsyncIterator[dict]:
        """Gives the JSON of a request to the generator."""
        if not self._generator:
            raise RequestError(404, "there is no generator here")
        async with self._intake.receive(request) as body:
            yield payloads.parse_object(body)

    async def _recognise(self, body: bytes) -> dict:
        square = await self._classifier.open_file(body)
        answer = await self._classifier.recognise_pixels(square[None])
        shares = answer["probabilities"][0]
        names = self._classifier.predictor.class_names
        order = np.argsort(-shares, kind="stable")[:_NAMES]
        top = [(names[i], float(shares[i])) for i in order]
        return {
            "top": top,
            "is_unknown": bool(answer["is_unknown"][0]),
            "explanation": await self._explain(square, top),
        }

    async def _explain(self, square: np.ndarray, top: list) -> str | None:
        """What spoke for the likeliest name, as a picture; None from an export."""
        if not self._explainer:
            return None
        predictions = [Prediction("", top=tuple(top))]
        call, explain = self._classifier.batcher.call, self._explainer.explain
        (overlay,) = await call(explain, [square], predictions)
        return _png_uri(np.asarray(overlay))

    async def _draw(self, content: dict, noise: np.ndarray) -> dict:
        labels = self._labels(content, len(noise))
        images = (await self._generator.draw(noise, labels))["images"]
        pictures = [{"png": _png_uri(image)} for image in images]
        if self._classifier:
            answer = await self._classifier.recognise_pixels(images)
            for row, picture in enumerate(pictures):
                picture["name"] = answer["labels"][row, 0]
                picture["share"] = float(answer["scores"][row, 0])
                picture["is_unknown"] = bool(answer["is_unknown"][row])
        return {"pictures": pictures}

    async def _way(self, content: dict, seeds: list[int], truncation: float) -> bytes:
        frames = max(1, min(_FRAMES, self._limits.pictures // 2))
        noise = self._generator.way(seeds, frames, truncation)
        labels = self._labels(content, len(noise))
        images = (await self._generator.draw(noise, labels))["images"]
        return await self._generator.batcher.call(_to_gif, images)

    def _labels(self, content: dict, count: int) -> np.ndarray:
        character = content.get("character")
        drawer = self._generator.drawer
        if character not in drawer.drawn:
            raise RequestError(400, f"there are no drawings of {character!r} here")
        return np.full(count, drawer.class_names.index(character), np.int32)


def _number(content: dict, name: str) -> int:
    return payloads.to_array(content.get(name), Tensor("DT_INT64"), name).item()


def _share(content: dict) -> float:
    value = content.get("truncation")
    return payloads.to_array(value, Tensor("DT_FLOAT"), "truncation").item()


def _seeds(content: dict) -> list[int]:
    value = content.get("seeds")
    return payloads.to_array(value, Tensor("DT_INT64", (2,)), "seeds").tolist()


def _png_uri(image: np.ndarray) -> str:
    return pages.data_uri(to_png(image), "image/png")


def _to_gif(images: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "way.gif"
        frames = [Image.fromarray(image) for image in images]
        sheets.save_gif(frames, path, _SECONDS, hold_last=_SECONDS)
        return path.read_bytes()


def _json(content: dict) -> Response:
    return Response(payloads.to_bytes(content), media_type="application/json")
