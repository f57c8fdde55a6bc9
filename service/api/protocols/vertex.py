"""Vertex AI: health checks and predictions at the two paths that its variables name.

Source: Vertex AI's documentation, "Custom container requirements for inference".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.base64_images import decode_image
from service.api.classification import Asked, Ranked, classify_request, write_scores
from service.api.json_bodies import MEDIA_TYPE, JsonValue, max_body_bytes, read_json
from service.api.json_fields import read_top_k, take_object
from service.api.parameters import TOP_K
from service.api.protocols.protocol import Protocol, find_route
from service.api.record import RequestRecord, record_of
from service.api.routes.health import answer_probe
from service.api.routes.predict import answer_one, predict, read_asked, take_image
from service.api.schemas import VertexBody
from service.api.service import service_of
from service.api.upload import UploadLimits, read_media_type
from service.errors import ImageBytesTooLarge, MissingImage, TooManyImages, UnsupportedMediaType
from service.imaging.pixels import Pixels
from service.inference.admission import Ticket

_INSTANCES, _PARAMETERS, _BASE64 = "instances", "parameters", "b64"
_to_json = TypeAdapter(VertexBody).dump_json


@dataclass(frozen=True)
class Vertex:
    """Handlers of predictions.

    Attributes:
        limits: Those of one image.
        max_images: Limit of the images of a request.
        max_bytes: Limit of the images of a request, in bytes.
        model_id: In each answer. An empty one is left out.
    """

    limits: UploadLimits
    max_images: int
    max_bytes: int
    model_id: str = ""

    async def predict(self, request: Request) -> Response:
        """Classify every instance."""
        ranked = await classify_request(request, partial(self._read_instances, request))
        return self._answer(record_of(request.scope), ranked)

    async def predict_any(self, request: Request) -> Response:
        """Classify every instance, or the image of any other body as `/predict` does. The answer has the form of it."""
        record, has_instances = record_of(request.scope), False

        def translate(document: JsonValue) -> Asked:
            nonlocal has_instances
            has_instances = isinstance(document, dict) and _INSTANCES in document
            if not has_instances:
                return take_image(self.limits, document)
            record.has_plain_errors = True
            return self._translate(document)

        async def read(ticket: Ticket) -> Asked:
            kind, _ = read_media_type(request)
            if kind != MEDIA_TYPE:
                return await read_asked(request, ticket)
            return await read_json(request, ticket, self.limits, translate, self._limit_body(request))

        ranked = await classify_request(request, read)
        return self._answer(record, ranked) if has_instances else answer_one(record, ranked[0])

    async def _read_instances(self, request: Request, ticket: Ticket) -> Asked:
        kind, _ = read_media_type(request)
        if kind != MEDIA_TYPE:
            raise UnsupportedMediaType(f"The body is {kind[:80]!r}. Send JSON with Content-Type {MEDIA_TYPE}.")
        return await read_json(request, ticket, self.limits, self._translate, self._limit_body(request))

    def _limit_body(self, request: Request) -> int:
        """Return the limit of a body. The queue must hold it."""
        return min(max_body_bytes(self.max_bytes), service_of(request).admission.max_queue_bytes)

    def _translate(self, document: JsonValue) -> Asked:
        fields = take_object(document, "the body", (_INSTANCES, _PARAMETERS))
        parameters = fields.get(_PARAMETERS)
        top_k = () if parameters is None else read_top_k(take_object(parameters, _PARAMETERS, (TOP_K,)))
        return Asked(self._decode(fields.get(_INSTANCES)), top_k)

    def _answer(self, record: RequestRecord, ranked: Sequence[Ranked]) -> Response:
        body = VertexBody([write_scores(one.ranking) for one in ranked], self.model_id or None)
        return Response(_to_json(body), media_type="application/json", headers=record.server_timing())

    def _decode(self, instances: JsonValue) -> list[bytes | Pixels]:
        if not isinstance(instances, list) or not instances:
            raise MissingImage(
                f'The JSON has no list {_INSTANCES!r}. Send {{"{_INSTANCES}": [{{"{_BASE64}": "..."}}]}}.'
            )
        if len(instances) > self.max_images:
            raise TooManyImages(f"The request has {len(instances)} images. Send up to {self.max_images} in a request.")
        images: list[bytes | Pixels] = []
        num_bytes = 0
        for number, instance in enumerate(instances):
            name = f"{_INSTANCES}[{number}]"
            fields = take_object(instance, name, (_BASE64,))
            if _BASE64 not in fields:
                raise MissingImage(f"{name} has no field {_BASE64!r}. Send the image file in base64 there.")
            image = decode_image(fields[_BASE64], f"{name}.{_BASE64}", self.limits.max_image_bytes)
            images.append(image)
            num_bytes += len(image)
            if num_bytes > self.max_bytes:
                raise ImageBytesTooLarge(
                    f"The images have more than {self.max_bytes} bytes. Send them in several requests."
                )
        return images


def make_protocol(vertex: Vertex, health_route: str, predict_route: str, taken: Sequence[Route]) -> Protocol:
    """Return the protocol with the two routes that the platform names. An empty name is no route.

    A path of `taken` keeps its answers. One with the answers of `/predict` takes instances, too.
    """
    routes, paths = [], set()
    if health_route and find_route(taken, "GET", health_route) is None:
        routes.append(Route(health_route, answer_probe, methods=["GET"]))
        paths.add(health_route)
    known = find_route(taken, "POST", predict_route)
    if predict_route and known is None:
        routes.append(Route(predict_route, vertex.predict, methods=["POST"]))
        paths.add(predict_route)
    elif known is not None and known.endpoint is predict:
        routes.append(Route(predict_route, vertex.predict_any, methods=["POST"]))
    return Protocol(routes, frozenset(paths - {route.path for route in taken}), frozenset({health_route}))
