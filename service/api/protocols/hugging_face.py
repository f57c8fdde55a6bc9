"""Hugging Face: `InferenceClient(model=".../hugging-face").image_classification(file)`.

The client posts to the very URL that it is given. It sends a file as it is, or with parameters as JSON.
"""

from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.api.base64_images import decode_image
from service.api.classification import Asked, classify_request
from service.api.json_bodies import MEDIA_TYPE, JsonValue, read_json
from service.api.json_fields import read_top_k, take_object
from service.api.parameters import TOP_K
from service.api.protocols.protocol import Protocol
from service.api.record import record_of
from service.api.service import service_of
from service.api.upload import UploadLimits, read_image, read_media_type
from service.errors import InvalidParameter, MissingImage
from service.inference.admission import Ticket

PATH = "/hugging-face"
_INPUTS, _PARAMETERS, _FUNCTION = "inputs", "parameters", "function_to_apply"
_SOFTMAX = "softmax"


async def classify(request: Request) -> Response:
    """Answer labels and scores, best first."""
    (ranked,) = await classify_request(request, partial(_read, request))
    scores = [{"label": score.label, "score": score.probability} for score in ranked.ranking.scores]
    return JSONResponse(scores, headers=record_of(request.scope).server_timing())


async def _read(request: Request, ticket: Ticket) -> Asked:
    service = service_of(request)
    limits = service.upload_limits
    kind, _ = read_media_type(request)
    if kind == MEDIA_TYPE:
        translate = partial(_translate, limits)
        return await read_json(request, ticket, limits, translate, service.max_json_bytes)
    upload = await read_image(request, ticket, limits)
    return Asked([upload.image], upload.top_k)


def _translate(limits: UploadLimits, document: JsonValue) -> Asked:
    fields = take_object(document, "the body", (_INPUTS, _PARAMETERS))
    parameters = fields.get(_PARAMETERS)
    parameters = {} if parameters is None else take_object(parameters, _PARAMETERS, (TOP_K, _FUNCTION))
    if parameters.get(_FUNCTION) not in (None, _SOFTMAX):
        raise InvalidParameter(f"{_FUNCTION} must be {_SOFTMAX!r}, since this model applies it. Leave it out.")
    top_k = read_top_k(parameters)
    if _INPUTS not in fields:
        raise MissingImage(f"The JSON has no field {_INPUTS!r}. Send the image file in base64 there.")
    return Asked([decode_image(fields[_INPUTS], _INPUTS, limits.max_image_bytes)], top_k)


PROTOCOL = Protocol([Route(PATH, classify, methods=["POST"])], frozenset({PATH}))
