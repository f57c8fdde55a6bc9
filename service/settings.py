"""Every knob of the programs: unit, bounds, default and a sentence, in one typed model per program.

A setting is a flag (`--max-queue-size`) and an environment variable (`FLOWERS_MAX_QUEUE_SIZE`); the flag wins.
Only `cli` and `api.app` read these; everybody below receives plain values.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from service.errors import SettingsError

ENVIRONMENT_PREFIX = "FLOWERS_"
Device = Literal["auto", "gpu", "cpu"]

# As the store has it, which this module must not know; a test holds one to the other.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_OF_DOCKER_COMPOSE = "FLOWERS_ADDRESS"

MaxImageBytes = Annotated[int, Field(ge=1024, le=1024**3, description="Largest image file, in bytes.")]
MaxImagePixels = Annotated[
    int,
    Field(
        ge=1024,
        le=1_000_000_000,
        description="Most pixels that an image is decoded to, judged from its header. A large JPEG counts as its "
        "decoder shrinks it, and may have 200 million in the file.",
    ),
]


_KEYS = ("api_keys", "api_keys_file")


class _Environment(EnvSettingsSource):
    """The environment without variables that are set to nothing. Keys that came out empty must not open the service."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings)
        kept = {f"{ENVIRONMENT_PREFIX}{key}".lower() for key in _KEYS}
        self.env_vars = {
            name: value for name, value in self.env_vars.items() if name.lower() in kept or (value or "").strip()
        }


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours takes its place
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the flags, then the environment."""
        return init_settings, _Environment(settings_cls), dotenv_settings, file_secret_settings


@Parameter(name="*")
class StoreSettings(_Settings):
    """Where models live, and which one is meant."""

    model_store: Path = Field(Path("model_store"), description="Folder with one folder per model.")
    model: str = Field(
        "flowers", description="Name of the model in the store: up to 64 letters, digits, `.`, `-`, `_`."
    )

    @field_validator("model")
    @classmethod
    def _can_be_a_name(cls, model: str) -> str:
        if not _MODEL_NAME.fullmatch(model):
            raise PydanticCustomError(
                "model_name", "give 1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first"
            )
        return model


@Parameter(name="*")
class EngineSettings(StoreSettings):
    """`flowers evaluate` and `predict`: what runs the model, and what one image may ask of the machine."""

    device: Device = Field("auto", description="auto takes a GPU when there is one; gpu fails without one.")
    engine: Literal["auto", "savedmodel", "onnxruntime"] = Field(
        "auto", description="What runs the network; auto: the SavedModel on a GPU, else the light onnxruntime."
    )
    precision: Literal["auto", "float32", "int8"] = Field(
        "auto", description="auto takes int8 where the version has it and the CPU has the instructions for it."
    )
    engine_threads: int = Field(
        0, ge=0, le=256, description="Cores that the engine computes on; 0: all, or as many as its container may use."
    )
    gpu_memory_limit_mb: int = Field(0, ge=0, description="Most memory to take on a GPU, in MB; 0: as it is needed.")
    decode_threads: int = Field(
        0, ge=0, le=256, description="Threads that decode ahead of lanes; 0: one more than cores."
    )
    max_image_bytes: MaxImageBytes = 20 * 1024 * 1024
    max_image_pixels: MaxImagePixels = 50_000_000


@Parameter(name="*")
class ServeSettings(EngineSettings):
    """`flowers serve`."""

    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 is every one of the machine's, `::` those of IPv6, too."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one and logs it.")
    max_batch_size: int = Field(32, ge=1, le=1024, description="Most images in one engine call.")
    max_queue_size: int = Field(128, ge=1, le=100_000, description="Most images that may wait; more get 429.")
    max_queue_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        le=1024**4,
        description="Most bytes of images, arriving or waiting; more get 429. At most half of the memory that is free "
        "at the start, but always one image.",
    )
    request_timeout_s: float = Field(
        10.0, gt=0, le=600, description="Longest that a request may take, in seconds, from the end of its upload."
    )
    body_timeout_s: float = Field(30.0, gt=0, le=600, description="Longest that a body may take to arrive, in seconds.")
    drain_delay_s: float = Field(
        5.0, ge=0, le=300, description="Seconds after SIGTERM or SIGHUP in which new requests are still taken."
    )
    drain_timeout_s: float = Field(25.0, gt=0, le=600, description="Most seconds for finishing what was accepted.")
    reload_interval_s: float = Field(5.0, gt=0, le=3600, description="Seconds between looks at the model store.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, JSON lines elsewhere."
    )
    access_log: bool = Field(True, description="One log line per request.")
    api_keys: SecretStr | None = Field(
        None, description="Who may ask: keys, separated by commas; without any, everybody. Better not as a flag."
    )
    api_keys_file: Path | None = Field(None, description="More of them, one a line; read at the start.")
    open_metrics: bool = Field(False, description="/metrics needs no API key.")
    open_docs: bool = Field(True, description="/docs, /openapi.json and /problems need no API key.")
    cors_origins: str = Field(
        "", description="Web pages that may ask from a browser: origins, separated by commas; * is any."
    )

    @field_validator("host")
    @classmethod
    def _is_written_without_brackets(cls, host: str) -> str:
        """Take [::1], too, as an IPv6 address is written before a port."""
        host = host.strip()
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, cors_origins: str) -> str:
        origins = cors_origins.lower()  # as browsers send them, and they are compared letter by letter
        if not all(_ORIGIN.fullmatch(origin.strip()) for origin in origins.split(",") if origin.strip()):
            raise PydanticCustomError(
                "origins", "give origins such as https://shop.example, without a path, separated by commas, or *"
            )
        return origins


@Parameter(name="*")
class TrainSettings(_Settings):
    """`flowers train`."""

    model_store: Path = Field(Path("model_store"), description="Folder with one folder per model.")
    runs: Path = Field(Path("runs"), description="Folder for run folders: checkpoints, history, curves, reports.")
    cache: Path = Field(
        Path("~/.cache/flowers"), description="Folder for fetched data and files of libraries, outside any repository."
    )
    recipe: str = Field("default", description="Name of a recipe in service/training/recipes.")
    device: Device = Field("auto", description="auto takes a GPU when there is one; gpu fails without one.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of split, initial weights, order and augmentation.")
    epochs: int | None = Field(None, ge=1, le=10_000, description="Epochs; default: the recipe's.")
    batch_size: int | None = Field(None, ge=1, le=4096, description="Photographs per step; default: the recipe's.")
    network: Literal["alexnet_v1", "alexnet_v2"] | None = Field(None, description="Network; default: the recipe's.")
    teacher: str | None = Field(
        None,
        description="Who teaches: none, efficientnet_lite0, 1 or 2, or a network of keras.applications; "
        "default: the recipe's.",
    )
    max_image_bytes: MaxImageBytes = 20 * 1024 * 1024
    max_image_pixels: MaxImagePixels = 50_000_000


PROGRAMS: tuple[type[_Settings], ...] = (StoreSettings, EngineSettings, ServeSettings, TrainSettings)


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse `FLOWERS_` names that no program knows: a misspelt setting must not be ignored in silence.

    Raises:
        SettingsError: names the unknown variable and the nearest known one.
    """
    known = {f"{ENVIRONMENT_PREFIX}{field}".upper() for program in PROGRAMS for field in program.model_fields}
    for name in sorted(environment):
        read_as = name.upper()  # pydantic takes `flowers_port`, too
        # docker-compose.yml reads that one from the shell, in which `flowers` may be called as well.
        is_anothers = read_as.startswith("FLOWERS_TEST_") or read_as == _OF_DOCKER_COMPOSE
        if read_as.startswith(ENVIRONMENT_PREFIX) and read_as not in known and not is_anothers:
            nearest = difflib.get_close_matches(read_as, known, n=1, cutoff=0)
            raise SettingsError(f"{name} is no setting of this program; the nearest is {nearest[0]}")


def describe_invalid_settings(error: ValidationError) -> str:
    """One sentence for a value out of bounds, naming the setting as people write it."""
    first = error.errors(include_url=False)[0]
    setting = str(first["loc"][-1]) if first["loc"] else "settings"
    flag = "--" + setting.replace("_", "-")
    return f"{flag} ({ENVIRONMENT_PREFIX}{setting.upper()}): {first['msg'].lower()}, not {first.get('input')!r}"
