"""Help texts: the verbs in the order of their use, examples, and settings in groups with their variables."""

import re
from dataclasses import dataclass

from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions
from rich.text import Text

from service.setting_sources import ENVIRONMENT_PREFIX

GROUPS = {
    "Model": (
        "model_store", "model", "device", "engine", "precision", "engine_threads", "gpu_memory_limit_mb", "cache",
        "max_cache_bytes",
    ),
    "Images": ("max_image_bytes", "max_image_pixels", "decode_threads"),
    "Client": ("api_key",),
    "Ray": ("ray_address", "rows_per_file"),
    "Address": ("host", "port", "workers", "max_connections"),
    "Queue": ("max_batch_size", "max_queue_size", "max_queue_bytes", "max_batch_images", "max_batch_bytes"),
    "Time limits": ("request_timeout_s", "body_timeout_s", "drain_delay_s", "drain_timeout_s", "reload_interval_s"),
    "Explanations": ("explanations", "max_explanations", "max_waiting_explanations", "explain_timeout_s"),
    "Access": ("api_keys", "api_keys_file", "open_metrics", "open_docs", "cors_origins"),
    "Log": ("log_format", "access_log"),
    "Protocols": (
        "hugging_face", "open_inference", "tensorflow_serving", "sagemaker", "vertex",
        "vertex_health_route", "vertex_predict_route", "vertex_deployed_model_id",
    ),
    "Training": (
        "recipe", "network", "teacher", "begin_with", "outliers", "epochs", "minutes", "batch_size", "seed", "runs",
        "max_decoded_bytes",
    ),
}  # fmt: skip
"""Settings by their subject. Every setting is in one group."""


@dataclass(frozen=True)
class Verb:
    """A verb of `flowers`: its word, its usage behind the name, and two examples."""

    name: str
    word: str
    usage: str
    examples: tuple[str, str]


VERBS = (
    Verb("serve", "Answer over HTTP.", "[OPTIONS]", ("flowers serve", "flowers serve --model garden --port 9000")),
    Verb(
        "predict", "Score image files.", "[OPTIONS] [PATH...]",
        ("flowers predict --sample", "flowers predict photos/ --format csv > scores.csv"),
    ),
    Verb(
        "train", "Make a version from a folder of photographs.", "[OPTIONS] [FOLDER]",
        ("flowers train my_garden/", "flowers train my_garden/ --minutes 10 --name garden"),
    ),
    Verb(
        "evaluate", "Measure a version on photographs.", "[OPTIONS] FOLDER",
        ("flowers evaluate my_garden/ --model garden", "flowers evaluate my_garden/ --part test --report report.html"),
    ),
    Verb(
        "models", "List, verify, pin and remove versions.", "COMMAND", ("flowers models list", "flowers models use 9")
    ),
    Verb(
        "bench", "Load a running service, and measure it.", "[OPTIONS] URL",
        ("flowers bench http://localhost:8000", "flowers bench http://localhost:8000 --image photos/"),
    ),
    Verb(
        "export", "Write a version as one file for other programs.", "[OPTIONS]",
        ("flowers export --to onnx", "flowers export --to litert --version 9 --output flowers.tflite"),
    ),
    Verb("runs", "List the trainings.", "[OPTIONS]", ("flowers runs", "flowers runs --json")),
    Verb("doctor", "Find what is missing here.", "[OPTIONS]", ("flowers doctor", "flowers doctor --json")),
)  # fmt: skip
"""The verbs, the most used first."""


class HelpFormatter(DefaultFormatter):
    """Panels of cyclopts. Settings are in groups, and each has its variable. Each verb has its word."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one panel, or the groups of its settings."""
        if panel.format == "command":
            words = {verb.name: verb.word for verb in VERBS}
            entries = [entry.copy(description=words.get(entry.names[0], entry.description)) for entry in panel.entries]
            super().__call__(console, options, panel.copy(entries=entries))
            return
        rest = [entry for entry in panel.entries if _field_of(entry) is None]
        super().__call__(console, options, panel.copy(entries=rest))
        for title, fields in GROUPS.items():
            grouped = [
                entry.copy(env_var=(ENVIRONMENT_PREFIX + field.upper(),))
                for field in fields
                for entry in panel.entries
                if _field_of(entry) == field
            ]
            super().__call__(console, options, panel.copy(title=title, entries=grouped))

    def render_description(self, console: Console, options: ConsoleOptions, description: object) -> None:
        """Print the text above the panels. Lines of a paragraph are joined, and the console breaks them anew."""
        plain = getattr(getattr(description, "primary_renderable", None), "plain", "")
        super().render_description(console, options, Text(re.sub(r"(?<!\n)\n(?!\n)", " ", plain).rstrip() + "\n"))


def describe_usage(name: str) -> str:
    """Return the usage of a verb with its examples below."""
    (verb,) = (verb for verb in VERBS if verb.name == name)
    return "\n  ".join((f"flowers {name} {verb.usage}\n", *verb.examples))


def _field_of(entry: HelpEntry) -> str | None:
    """Return the setting of a flag. None means that the flag is none."""
    field = entry.names[0].removeprefix("--").replace("-", "_") if entry.names else ""
    return field if any(field in fields for fields in GROUPS.values()) else None
