"""The embedded engine and registry with one run image."""

from __future__ import annotations

from shim.demo import images, servers
from shim.demo.lifecycle import ARCHITECTURE

OTHER_ID = "0dd2aeb4cd7210eb502680aa2753e90c17acf98b48184a4540713b4eb4fd0be5"


class Parts:
    """An engine and a registry that know a multi-arch run image."""

    def __init__(self, engine: servers.Engine, registry: servers.Registry) -> None:
        self.engine = engine
        self.registry = registry
        self.image = images.multi("run")
        self.name = registry.push("run/app:1.0", self.image)
        engine.pull(self.name)
        self.id = self.image.config_digest(ARCHITECTURE).removeprefix("sha256:")
        self.digest = f"{registry.host}/run/app@{self.image.manifest_digest(ARCHITECTURE)}"
        self.at = {"DOCKER_HOST": engine.url}
        registry.asked.clear()
        engine.asked.clear()
