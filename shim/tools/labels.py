"""The labels of a builder or lifecycle image (https://github.com/buildpacks/spec/blob/main/platform.md)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shim.errors import BrokenFile

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA = "io.buildpacks.builder.metadata"


def of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that an image's configuration has."""
    return {str(key): str(value) for key, value in ((config.get("config") or {}).get("Labels") or {}).items()}


def table(labels: Mapping[str, str], label: str) -> dict[str, Any]:
    """Return a label's JSON object; empty if there is none.

    Raises:
        BrokenFile: it isn't JSON.

    """
    try:
        value = json.loads(labels.get(label) or "{}")
    except ValueError:
        raise BrokenFile(f"the image's label {label} is not JSON", "use another image") from None
    return value if isinstance(value, dict) else {}


def has_extensions(labels: Mapping[str, str]) -> bool | None:
    """Return whether a builder has image extensions; None: it is a lifecycle image, used with any builder.

    Raises:
        BrokenFile: a label isn't JSON.

    """
    metadata = table(labels, METADATA)
    order = labels.get("io.buildpacks.buildpack.order-extensions", "").strip()
    if (isinstance(metadata.get("extensions"), list) and metadata["extensions"]) or order not in ("", "null", "[]"):
        return True
    # A lifecycle image has the label too, with nothing but the lifecycle in it.
    return False if {"buildpacks", "extensions", "stack"} & set(metadata) else None
