"""Checks of the environment, and sentences for settings that cannot be used."""

import difflib
from collections.abc import Mapping

from pydantic import ValidationError

from service.errors import SettingsError
from service.setting_sources import ENVIRONMENT_PREFIX
from service.settings import PROGRAMS, ClientSettings, ServeSettings

_OF_DOCKER_COMPOSE = "FLOWERS_ADDRESS"


def check_keys_variable(settings: ServeSettings) -> None:
    """Refuse to serve without keys where only the client's variable is set. Raises `SettingsError`."""
    if settings.api_keys is None and settings.api_keys_file is None and ClientSettings().api_key is not None:
        raise SettingsError(
            "FLOWERS_API_KEY is set, which clients read, and the service has no keys. It would be open. Set "
            "FLOWERS_API_KEYS, or unset FLOWERS_API_KEY."
        )


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse `FLOWERS_` variables that no program knows. Raises `SettingsError` with the nearest known name."""
    known = {f"{ENVIRONMENT_PREFIX}{field}".upper() for program in PROGRAMS for field in program.model_fields}
    for name in sorted(environment):
        read_as = name.upper()  # pydantic takes `flowers_port`, too
        # docker-compose.yml reads the address from the shell. `flowers` may run in that shell, too.
        is_foreign = read_as.startswith("FLOWERS_TEST_") or read_as == _OF_DOCKER_COMPOSE
        if read_as.startswith(ENVIRONMENT_PREFIX) and read_as not in known and not is_foreign:
            nearest = difflib.get_close_matches(read_as, known, n=1, cutoff=0)
            raise SettingsError(f"{name} is no setting. The nearest is {nearest[0]}. Write that, or unset {name}.")


def describe_invalid_settings(error: ValidationError) -> str:
    """Return sentences for a value out of bounds, with flag and variable."""
    errors = error.errors(include_url=False)
    place = errors[0]["loc"][:1]
    setting = str(place[0]) if place else "settings"
    flag = "--" + setting.replace("_", "-")
    allowed = ". Or: ".join(one["msg"] for one in errors if one["loc"][:1] == place)  # such as a word, or a number
    return f"{flag} ({ENVIRONMENT_PREFIX}{setting.upper()}) is {errors[0].get('input')!r}. {allowed}."
