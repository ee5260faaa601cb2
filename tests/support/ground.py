"""The states of a real engine and a real registry in which builds are tested."""

from __future__ import annotations

import os

from shim.demo.images import Image
from shim.demo.lifecycle import ARCHITECTURE
from tests.support import real

APIS = ("0.10", "0.11")
CASES = ("multi", "single", "pinned", "stale", "unrelated", "daemon-only", "absent", "no-switch", "no-extension")
SWITCHED = CASES[:7]

NIGHTLY = bool(os.environ.get("NIGHTLY"))

WAYS: dict[str, tuple[str, ...]] = {
    "all three": ("analyzer", "restorer", "exporter"),
    "the restorer alone": ("restorer",),
    "all three, no socket at the restorer": ("analyzer", "restorer", "exporter"),
    "the exporter alone": ("exporter",),
}

FAILS_BARE = ("daemon-only", "no-switch")
"""Where the restorer itself fails, so that the exporter's wrapper never has its turn."""


class Ground:
    """The state of the daemon and the registry for one case."""

    def __init__(self, engine: real.Engine, registry: real.Registry, images_: dict[str, Image]) -> None:
        self.engine = engine
        self.registry = registry
        self.images = images_

    def lay(self, case: str) -> str | None:
        """Bring both into the state of a case, and return the run image that the extension switches to."""
        self.engine.forget(self.registry.host)
        base = self.pushed("run/base:1.0", "base")
        self.engine.pull(base)
        if case in ("no-switch", "no-extension"):
            return None
        name = f"{self.registry.host}/run/{case}:1.0"
        if case == "daemon-only":
            self.engine.tag(base, name)
        elif case == "unrelated":
            self.pushed(f"run/{case}:1.0", "multi")
            self.engine.tag(base, name)
        elif case == "stale":
            self.pushed(f"run/{case}:1.0", "multi")
            self.engine.pull(name)
            self.pushed(f"run/{case}:1.0", "newer")
        elif case == "pinned":
            self.pushed(f"run/{case}:1.0", "multi")
            name = f"{self.registry.host}/run/{case}@{self.images['multi'].digest}"
            self.engine.pull(name)
        else:
            self.pushed(f"run/{case}:1.0", "single" if case == "single" else "multi")
            if case != "absent":
                self.engine.pull(name)
        return name

    def pushed(self, name: str, image: str) -> str:
        return self.registry.push(name, self.images[image])


def id_in(engine: real.Engine, image: Image) -> str:
    """Return the bare ID that an image of its tag has in an engine."""
    digest = image.digest if engine.kind == "containerd" else image.config_digest(ARCHITECTURE)
    return digest.removeprefix("sha256:")
