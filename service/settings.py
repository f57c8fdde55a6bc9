"""Settings of the programs, with unit, bounds, default and a sentence.

A setting is a flag (`--max-queue-size`) and an environment variable (`FLOWERS_MAX_QUEUE_SIZE`). The flag wins.
Only `cli` and `api.app` read settings. Modules below receive plain values.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from service.engines.wish import EngineName, EngineWish, PrecisionWish
from service.imaging.limits import ImageLimits
from service.platforms import ROUTE
from service.remote_store.location import StoreUrl
from service.setting_sources import PlatformSettings, Settings
from service.setting_types import Cache, DeviceSetting, MaxDecodedBytes, MaxImageBytes, MaxImagePixels, ModelStore
from service.store.layout import MODEL_NAME, MODEL_NAME_RULE

_LIMITS = ImageLimits()
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

_CACHE = Path("~/.cache/flowers")


@Parameter(name="*")
class StoreSettings(Settings):
    """`flowers models`: the store and the model."""

    model_store: ModelStore = Path("model_store")
    model: str = Field("flowers", description="Model in the store. Its name has up to 64 letters, digits, `.-_`.")
    cache: Cache = _CACHE
    max_cache_bytes: int = Field(
        16 * 1024**3,
        ge=1024,
        le=1024**5,
        description="Limit of cached versions of a remote store, in bytes. Older ones are dropped. The live, the "
        "pinned and the newest stay in any case.",
    )

    @property
    def store_folder(self) -> Path:
        """The folder that is read: the store itself, or the cache of a remote store."""
        if isinstance(self.model_store, StoreUrl):
            return self.model_store.cache_folder(self.cache)
        return self.model_store

    @field_validator("model")
    @classmethod
    def _can_be_a_name(cls, model: str) -> str:
        if not MODEL_NAME.fullmatch(model):
            raise PydanticCustomError("model_name", f"Give {MODEL_NAME_RULE}")
        return model


@Parameter(name="*")
class EngineSettings(StoreSettings):
    """`flowers evaluate` and `flowers predict`: the engine, and the limits of one image."""

    device: DeviceSetting = "auto"
    engine: EngineName = Field("auto", description="Runtime. auto takes the SavedModel on a GPU, else onnxruntime.")
    precision: PrecisionWish = Field(
        "auto", description="Precision. auto takes int8 if the version and the CPU have it."
    )
    engine_threads: int = Field(
        0, ge=0, le=256, description="Number of cores for the engine. 0 means all cores that the container may use."
    )
    gpu_memory_limit_mb: int = Field(0, ge=0, description="Limit of GPU memory, in MB. 0 means no limit.")
    decode_threads: int = Field(0, ge=0, le=256, description="Number of decoding threads. 0 means one more than cores.")
    max_image_bytes: MaxImageBytes = _LIMITS.max_image_bytes
    max_image_pixels: MaxImagePixels = _LIMITS.max_image_pixels

    @property
    def wish(self) -> EngineWish:
        """The engine's settings."""
        return EngineWish(self.engine, self.device, self.precision, self.engine_threads, self.gpu_memory_limit_mb)

    @property
    def limits(self) -> ImageLimits:
        """The limits of one image."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels)


@Parameter(name="*")
class ClientSettings(Settings):
    """`flowers predict --url`: the access to a service."""

    api_key: SecretStr | None = Field(
        None, description="API key for the service of --url. A flag shows it in the process list."
    )


@Parameter(name="*")
class RaySettings(Settings):
    """`flowers predict --ray`: the cluster, and the files of scores."""

    ray_address: str = Field(
        "",
        pattern=r"^(.+:[0-9]{1,5})?$",
        description="Address of a Ray cluster, such as 10.0.0.1:6379. Without it, Ray starts on this machine.",
    )
    rows_per_file: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Number of photographs in a Parquet file, and in a task. Best is a multiple of 32, the batch.",
    )


@Parameter(name="*")
class ServeSettings(PlatformSettings, EngineSettings):
    """`flowers serve`: the address, the queue, the timeouts, the access."""

    host: str = Field("127.0.0.1", description="Address to listen on. 0.0.0.0 means all, `::` those of IPv6, too.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port. 0 takes a free one and logs it.")
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        "auto",
        description="Number of worker processes. auto means one a core that the container may use, up to 16, as far as "
        "the memory carries them.",
    )
    max_connections: int = Field(
        1024, ge=1, le=100_000, description="Limit of open connections. Further ones wait until one ends."
    )
    max_batch_size: int = Field(32, ge=1, le=1024, description="Limit of images in one engine call.")
    max_queue_size: int = Field(128, ge=1, le=100_000, description="Limit of waiting images. More get 429.")
    max_queue_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        le=1024**4,
        description="Limit of bytes of arriving and waiting images. More get 429. It is at most half of the memory "
        "that is free at the start. One image always fits.",
    )
    max_batch_images: int = Field(128, ge=1, le=10_000, description="Limit of images in one request for a batch.")
    max_batch_bytes: int = Field(
        512 * 1024 * 1024, ge=1024, le=1024**4, description="Limit of all images in one request for a batch, in bytes."
    )
    request_timeout_s: float = Field(
        10.0, gt=0, le=600, description="Timeout of a request, in seconds, from the end of its upload."
    )
    body_timeout_s: float = Field(30.0, gt=0, le=600, description="Timeout of an upload, in seconds.")
    explanations: bool = Field(True, description="Answer POST /explain. Otherwise the path does not exist.")
    max_explanations: int = Field(1, ge=1, le=64, description="Limit of explanations at work, in all workers.")
    max_waiting_explanations: int = Field(
        4, ge=0, le=10_000, description="Limit of waiting explanations, in all workers. More get 429."
    )
    explain_timeout_s: float = Field(
        30.0, gt=0, le=600, description="Timeout of an explanation, in seconds, from the end of its upload."
    )
    drain_delay_s: float = Field(
        5.0, ge=0, le=300, description="Time after SIGTERM or SIGHUP in which new requests are still taken, in seconds."
    )
    drain_timeout_s: float = Field(
        25.0, gt=0, le=600, description="Timeout of accepted requests at the end, in seconds."
    )
    reload_interval_s: float = Field(5.0, gt=0, le=3600, description="Time between scans of the store, in seconds.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Format of the log. auto means console on a terminal and JSON lines elsewhere."
    )
    access_log: bool = Field(True, description="Log a line per request.")
    api_keys: SecretStr | None = Field(
        None,
        description="API keys, separated by commas. Without keys the service is open. "
        "A flag shows them in the process list.",
    )
    api_keys_file: Path | None = Field(None, description="File with more API keys, one a line, read at the start.")
    open_metrics: bool = Field(False, description="Answer /metrics without an API key.")
    open_docs: bool = Field(True, description="Answer /docs, /openapi.json and /problems without an API key.")
    cors_origins: str = Field(
        "", description="Origins of web pages that may send requests from a browser, separated by commas. * means any."
    )

    hugging_face: bool = Field(True, description="Answer Hugging Face's InferenceClient at /hugging-face.")
    open_inference: bool = Field(True, description="Answer the Open Inference Protocol (KServe, Triton) at /v2.")
    tensorflow_serving: bool = Field(True, description="Answer clients of TensorFlow Serving at /v1/models.")
    sagemaker: bool = Field(True, description="Answer SageMaker at /ping and /invocations.")
    vertex: bool = Field(True, description="Answer Vertex AI at its two routes.")
    vertex_health_route: str = Field(
        "", pattern=f"^({ROUTE})?$", description="Path of Vertex AI's health checks. AIP_HEALTH_ROUTE is read, too."
    )
    vertex_predict_route: str = Field(
        "", pattern=f"^({ROUTE})?$", description="Path of Vertex AI's predictions. AIP_PREDICT_ROUTE is read, too."
    )
    vertex_deployed_model_id: str = Field(
        "", description="Id in answers to Vertex AI. AIP_DEPLOYED_MODEL_ID is read, too. Without one there is no id."
    )

    @field_validator("host")
    @classmethod
    def _is_written_without_brackets(cls, host: str) -> str:
        host = host.strip()  # [::1] is taken, too, as in a URL
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, cors_origins: str) -> str:
        origins = cors_origins.lower()  # as browsers send them, and they are compared letter by letter
        if not all(_ORIGIN.fullmatch(origin.strip()) for origin in origins.split(",") if origin.strip()):
            raise PydanticCustomError(
                "origins", "Give origins such as https://shop.example, without a path, separated by commas, or *"
            )
        return origins


@Parameter(name="*")
class RunsSettings(Settings):
    """`flowers runs` and `flowers train`: the folder of trainings."""

    runs: Path = Field(Path("runs"), description="Folder of run folders with checkpoints, history, curves and reports.")


@Parameter(name="*")
class TrainSettings(RunsSettings):
    """`flowers train`: the data, the recipe, the device."""

    model_store: ModelStore = Path("model_store")
    cache: Cache = _CACHE
    recipe: str | None = Field(
        None,
        description="Recipe in service/training/recipes. The default is transfer for a folder of your own classes, and "
        "default for the five flowers.",
    )
    device: DeviceSetting = "auto"
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of split, initial weights, order and augmentation.")
    epochs: int | None = Field(
        None, ge=0, le=10_000,
        description="Number of epochs. The default is the recipe's. With the recipe transfer, 0 trains the last layer "
        "alone.",
    )  # fmt: skip
    minutes: float | None = Field(
        None, gt=0, le=100_000,
        description="Time that the whole command may take, in minutes. It chooses epochs, views and second network. "
        "The default is no limit.",
    )  # fmt: skip
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="Photographs in a step. The default is the recipe's."
    )
    network: (
        Literal["alexnet_v1", "alexnet_v2", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"] | None
    ) = Field(None, description="Network. The default is the recipe's.")
    teacher: str | None = Field(
        None,
        description="Teacher: none, efficientnet_lite0, 1 or 2, or a network of keras.applications. "
        "The default is the recipe's.",
    )
    begin_with: int | None = Field(
        None, ge=1, description="Version whose AlexNet goes on learning. The default begins with random weights."
    )
    outliers: Path | None = Field(
        None,
        description="Folder of images without any of the classes, a subfolder for each source. An AlexNet learns to "
        "doubt them. The default is none.",
    )
    max_image_bytes: MaxImageBytes = _LIMITS.max_image_bytes
    max_image_pixels: MaxImagePixels = _LIMITS.max_image_pixels
    max_decoded_bytes: MaxDecodedBytes = 64 * 1024**3


PROGRAMS: tuple[type[Settings], ...] = (
    StoreSettings,
    EngineSettings,
    ClientSettings,
    RaySettings,
    ServeSettings,
    RunsSettings,
    TrainSettings,
)
"""Settings of every program."""
