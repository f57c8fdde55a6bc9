"""Python client of the service, synchronous and asynchronous."""

from service.client.answers import Prediction
from service.client.asynchronous import AsyncClient
from service.client.results import FileResult
from service.client.retries import Retries
from service.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "FileResult", "Prediction", "Retries"]
