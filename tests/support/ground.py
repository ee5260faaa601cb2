"""The states of a real engine and a real registry in which builds are tested."""

from __future__ import annotations

from shim.demo.images import Image
from tests.support import real

CASES = ("multi", "single", "pinned", "stale", "unrelated", "daemon-only", "absent", "no-switch", "no-extension")
SWITCHED = CASES[:7]


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
