"""Tables of the reference pages, written from the code: `python -m docs.generate`.

A page holds its table between two marks. The text around them is written by hand.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import get_args, get_origin

import httpx
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from fastapi import FastAPI
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from pydantic.fields import FieldInfo

from service.api.app import create_app
from service.setting_sources import ENVIRONMENT_PREFIX
from service.settings import PROGRAMS, ServeSettings

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- written by docs/generate.py -->", "<!-- end -->"
_SIGNS = {Ge: ("ge", ">="), Gt: ("gt", ">"), Le: ("le", "<="), Lt: ("lt", "<")}


def describe_bounds(field: FieldInfo) -> str:
    """Return the choices or the bounds of a setting, in a few characters."""
    bounds = []
    alternatives = [part for choice in get_args(field.annotation) for part in get_args(choice)]
    inner = [bound for part in alternatives if isinstance(part, FieldInfo) for bound in part.metadata]
    for bound in (*field.metadata, *inner):
        if type(bound) in _SIGNS:
            attribute, sign = _SIGNS[type(bound)]
            bounds.append(f"{sign} {getattr(bound, attribute):,}")
        elif isinstance(bound, MinLen | MaxLen):
            bounds.append("at least 1 character" if isinstance(bound, MinLen) else f"at most {bound.max_length}")
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    for alternative in get_args(field.annotation) if get_origin(field.annotation) is not None else ():
        choices += [choice for choice in get_args(alternative) if isinstance(choice, str)]
    return ", ".join([*(f"`{choice}`" for choice in choices), *bounds])


def render_settings() -> str:
    """Return a table for each program: flag, variable, default, bounds, meaning."""
    parts = []
    for program in PROGRAMS:
        own = {name: field for name, field in program.model_fields.items() if name in program.__annotations__}
        parts.append(f"## {(program.__doc__ or '').strip().splitlines()[0].rstrip('.')}\n")
        parts.append("| flag | variable | default | may be | meaning |\n|---|---|---|---|---|")
        for name, field in own.items():
            default = "" if field.default in (None, "") else f"`{field.default}`"
            parts.append(
                f"| `--{name.replace('_', '-')}` | `{ENVIRONMENT_PREFIX}{name.upper()}` | {default} "
                f"| {describe_bounds(field)} | {field.description} |"
            )
        parts.append("")
    return "\n".join(parts).rstrip()


def render_problems() -> str:
    """Return a row for each problem that the OpenAPI document has: status, type, meaning."""
    problems = {}
    for path in _make_app().openapi()["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                examples = response.get("content", {}).get("application/problem+json", {}).get("examples", {})
                for name, example in examples.items():
                    problems[example["value"]["status"], name] = example["value"]["detail"]
    rows = [f"| {status} | `{name}` | {meaning} |" for (status, name), meaning in sorted(problems.items())]
    return "\n".join(["| status | `/problems/...` | meaning |", "|---|---|---|", *rows])


def render_metrics() -> str:
    """Return a row for each metric of a scrape after one prediction: name, kind, labels, meaning."""
    image = BytesIO()
    Image.new("RGB", (300, 300), (200, 40, 60)).save(image, "jpeg")
    rows = []
    for family in text_string_to_metric_families(asyncio.run(_scrape(image.getvalue()))):
        if not family.name.startswith("flowers_"):
            continue  # those of the process are not the same on every system
        labels = {name: None for sample in family.samples for name in sample.labels if name != "le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(
            f"| `{name}` | {family.type} | {', '.join(f'`{label}`' for label in labels)} | {family.documentation} |"
        )
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *sorted(rows)])


async def _scrape(image: bytes) -> str:
    app = _make_app()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://flowers") as client,
    ):
        while (await client.get("/readyz")).status_code != HTTPStatus.OK:
            await asyncio.sleep(0.05)
        (await client.post("/predict", content=image)).raise_for_status()
        return (await client.get("/metrics")).text


def _make_app() -> FastAPI:
    return create_app(ServeSettings(model_store=DOCS.parent / "model_store", model="flowers", access_log=False))


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": render_settings,
    "reference/problems.md": render_problems,
    "reference/metrics.md": render_metrics,
}


def embed(table: str, page: str) -> str:
    """Return the page with `table` between its marks."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    for name, render in PAGES.items():
        path = DOCS / name
        path.write_text(embed(render(), path.read_text(encoding="utf-8")), encoding="utf-8")
