"""Write `docs/settings.md` from the settings themselves: `make docs`. A test holds the file to what this writes."""

from pathlib import Path
from typing import get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from service.settings import ENVIRONMENT_PREFIX, PROGRAMS

HEAD = """# Settings

Every setting is a flag and an environment variable; the flag wins. A `FLOWERS_` variable that no program knows is
refused, with the nearest known name. A variable that is set to nothing counts as unset, but for those of API keys: keys
that came out empty end the program. This page is written by `make docs`.
"""
_SIGNS = {Ge: ("ge", ">="), Gt: ("gt", ">"), Le: ("le", "<="), Lt: ("lt", "<")}


def describe_bounds(field: FieldInfo) -> str:
    """What the setting may be, in a few characters."""
    bounds = []
    for bound in field.metadata:
        if type(bound) in _SIGNS:
            attribute, sign = _SIGNS[type(bound)]
            bounds.append(f"{sign} {getattr(bound, attribute):,}")
        elif isinstance(bound, MinLen | MaxLen):
            bounds.append("at least 1 character" if isinstance(bound, MinLen) else f"at most {bound.max_length}")
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    for alternative in get_args(field.annotation) if get_origin(field.annotation) is not None else ():
        choices += [choice for choice in get_args(alternative) if isinstance(choice, str)]
    return ", ".join(f"`{choice}`" for choice in choices) or ", ".join(bounds)


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for program in PROGRAMS:
        own = {name: field for name, field in program.model_fields.items() if name in program.__annotations__}
        parts.append(f"\n## {(program.__doc__ or '').strip().splitlines()[0]}\n")
        parts.append("| flag | variable | default | may be | meaning |\n|---|---|---|---|---|")
        for name, field in own.items():
            default = "" if field.default is None else f"`{field.default}`"
            parts.append(
                f"| `--{name.replace('_', '-')}` | `{ENVIRONMENT_PREFIX}{name.upper()}` | {default} "
                f"| {describe_bounds(field)} | {field.description} |"
            )
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("settings.md").write_text(render(), encoding="utf-8")
