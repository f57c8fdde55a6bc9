"""Where settings come from: flags, our variables, and what platforms say."""

import os
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from service.platforms import SAGEMAKER_FOLDER, find_mounted, read_platforms

ENVIRONMENT_PREFIX = "FLOWERS_"
_KEYS = ("api_keys", "api_keys_file")


class _Environment(EnvSettingsSource):
    """The environment without empty variables. Empty keys are kept, as they must not open the service."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings)
        kept = {f"{ENVIRONMENT_PREFIX}{key}".lower() for key in _KEYS}
        self.env_vars = {
            name: value for name, value in self.env_vars.items() if name.lower() in kept or (value or "").strip()
        }


class _Mounted(InitSettingsSource):
    """The version in the folder of SageMaker. The variables of an image are about the version inside it."""

    def __init__(self, settings: type[BaseSettings], flags: dict[str, Any]) -> None:
        mounted = None if {"model_store", "model"} & set(flags) else find_mounted(SAGEMAKER_FOLDER)
        super().__init__(settings, vars(mounted) if mounted else {})


class _Platforms(InitSettingsSource):
    """The variables and folders of platforms. They are read last."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings, {})

    def __call__(self) -> dict[str, Any]:
        """Return what flags and variables of ours leave open."""
        return read_platforms(os.environ, self.current_state, SAGEMAKER_FOLDER)


class Settings(BaseSettings):
    """Settings that flags give, and then the environment."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the flags, then the environment."""
        return init_settings, _Environment(settings_cls)


class PlatformSettings(Settings):
    """Settings that a platform may give, too."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the flags, then the folder of SageMaker, then the environment, then other words of platforms."""
        assert isinstance(init_settings, InitSettingsSource)
        mounted = _Mounted(settings_cls, init_settings.init_kwargs)
        return init_settings, mounted, _Environment(settings_cls), _Platforms(settings_cls)
