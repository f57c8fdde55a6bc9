"""`POST /predict`: one image in, its scores out."""

from functools import partial

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.base64_images import decode_image
from service.api.classification import Asked, Ranked, classify_request
from service.api.json_bodies import MEDIA_TYPE, JsonValue, read_json
from service.api.json_fields import read_top_k, take_object
from service.api.parameters import TOP_K
from service.api.record import RequestRecord, record_of
from service.api.schemas import LabelProbability, ModelVersion, PredictionBody
from service.api.service import service_of
from service.api.upload import UploadLimits, read_image, read_media_type
from service.errors import MissingImage
from service.inference.admission import Ticket

PATH = "/predict"
IMAGE = "image"
"""Key of the image in JSON."""
_to_json = TypeAdapter(PredictionBody).dump_json


async def predict(request: Request) -> Response:
    """Classify the image that the request carries."""
    (ranked,) = await classify_request(request, partial(read_asked, request))
    return answer_one(record_of(request.scope), ranked)


async def read_asked(request: Request, ticket: Ticket) -> Asked:
    """Read the image and `top_k` of a body of any kind. Errors are those of `read_image` and `read_json`."""
    service = service_of(request)
    limits = service.upload_limits
    kind, _ = read_media_type(request)
    if kind == MEDIA_TYPE:
        translate = partial(take_image, limits)
        return await read_json(request, ticket, limits, translate, service.max_json_bytes)
    upload = await read_image(request, ticket, limits)
    return Asked([upload.image], upload.top_k)


def take_image(limits: UploadLimits, document: JsonValue) -> Asked:
    """Return the image and `top_k` of a document `{"image": "<base64>", "top_k": 3}`.

    Raises `MissingImage` where there is no image. Further errors are those of `take_object` and `decode_image`.
    """
    fields = take_object(document, "the body", (IMAGE, TOP_K))
    top_k = read_top_k(fields)
    return Asked([take_file(limits, fields)], top_k)


def take_file(limits: UploadLimits, fields: dict[str, JsonValue]) -> bytes:
    """Return the image file of a document. Raises `MissingImage` and as `decode_image`."""
    if IMAGE not in fields:
        raise MissingImage(f"The JSON has no field {IMAGE!r}. Send the image file in base64 there.")
    return decode_image(fields[IMAGE], IMAGE, limits.max_image_bytes)


def answer_one(record: RequestRecord, ranked: Ranked) -> Response:
    """Return the answer for one image."""
    version, ranking = ranked.classified.version, ranked.ranking
    best = ranking.scores[0]
    body = PredictionBody(
        request_id=record.request_id,
        model=ModelVersion(name=version.model, version=version.version),
        label=best.label,
        probability=best.probability,
        confident=ranking.confident,
        reason=ranking.reason,
        predictions=[LabelProbability(score.label, score.probability) for score in ranking.scores],
    )
    return Response(_to_json(body), media_type="application/json", headers=record.server_timing())


routes = [Route(PATH, predict, methods=["POST"])]
"""Plain routes. FastAPI's own way to a handler costs the event loop more time than reading the body does."""
