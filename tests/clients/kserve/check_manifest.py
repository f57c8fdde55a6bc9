"""KServe's own models read a manifest: `check_manifest.py MANIFEST`. It prints the fields that they do not know.

It also prints those that have a value of another type. The models of `kserve` hold those of `kubernetes`, which another
generator has made.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import kserve
import kubernetes.client
import yaml

SCALARS: dict[str, type] = {"str": str, "int": int, "bool": bool}

manifest: dict[str, Any] = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
unknown: list[str] = []


def read(value: Any, kind: str, place: str) -> Any:
    """Make the model of a value. Its setters check required fields."""
    if items := re.fullmatch(r"list\[(.*)\]", kind):
        return [read(one, items[1], f"{place}[{index}]") for index, one in enumerate(value)]
    if hasattr(kserve, kind):
        model = getattr(kserve, kind)
        names = {sent: name for name, sent in model.attribute_map.items()}
        unknown.extend(f"{place}.{key}" for key in value if key not in names)
        known = {names[key]: part for key, part in value.items() if key in names}
        fields = {name: read(part, model.openapi_types[name], f"{place}.{name}") for name, part in known.items()}
        return model(**fields)
    kind = re.sub(r"^K8sIo\w+?(?=V\d)", "", kind)  # KServe's generator writes some names in full
    if hasattr(kubernetes.client, kind):
        made = getattr(kubernetes.client, kind).from_dict(value)
        compare(value, made.model_dump(mode="json", by_alias=True), place)
        return made
    if type(value) is not SCALARS.get(kind):
        unknown.append(f"{place}: no {kind}")
    return value


def compare(wanted: Any, there: Any, place: str) -> None:
    """Note what a model has lost."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        for key, value in wanted.items():
            compare(value, there.get(key), f"{place}.{key}")
    elif isinstance(wanted, list) and isinstance(there, list) and len(wanted) == len(there):
        for index, pair in enumerate(zip(wanted, there, strict=True)):
            compare(*pair, f"{place}[{index}]")
    elif wanted != there:
        unknown.append(place)


service = read(manifest, "V1beta1InferenceService", "")
print(json.dumps({"kind": service.kind, "unknown": unknown}))
