"""Asking a phase's daemon for an image. docker-py is the only client, and this the only place where it is made."""

from __future__ import annotations

import os

from shim.log import plain, without_secrets
from shim.policy import Found, is_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker.api.client import APIClient

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "loongarch64": "loong64"}


def own_platform() -> str:
    """Return the OS and architecture of this machine (uname(2)) as an image has them, such as linux/amd64."""
    machine = os.uname().machine
    return f"linux/{_ARCHITECTURES.get(machine, 'arm' if machine.startswith('armv') else machine)}"


class Daemon:
    """The daemon that a phase asks (Moby's `client.FromEnv`)."""

    def __init__(self, address: str, timeout: float, variables: Mapping[str, str]) -> None:
        """Take its address (empty: nobody knows it), the seconds for an answer, and the phase's environment."""
        self.address = without_secrets(address)
        self._url = address
        self._timeout = timeout
        self._variables = variables
        self._client: APIClient | None = None

    def look(self, reference: str) -> Found:
        """Ask for an image. Whatever goes wrong, the daemon can't be asked."""
        if not self._url:
            return Found("silent", detail="a launcher may have another daemon; --docker-host names it")
        if not is_reference(reference):
            return Found("silent", detail=f"{plain(reference, 80)} is not an image reference")
        try:
            if self._client is None:
                if self._url.startswith("unix:///"):  # the usual case of Quarkus's restorer, which needs no docker-py
                    import socket

                    with socket.socket(socket.AF_UNIX) as probe:
                        probe.settimeout(self._timeout)
                        probe.connect(self._url.removeprefix("unix://"))
                self._client = self._connect()
            from docker.errors import NotFound

            try:
                image = self._client.inspect_image(reference)  # type: ignore[no-untyped-call]
            except NotFound:
                return Found("lacks")
            image_id, platform = image["Id"].removeprefix("sha256:"), f"{image['Os']}/{image['Architecture']}"
        except Exception as problem:
            return Found("silent", detail=f"{self.address}: {self._reason(problem)}")
        if platform != own_platform():  # an index without content for any platform has neither
            return Found("lacks", own=own_platform(), other=plain(platform, 50).strip("/"))
        if len(image_id) != 64 or image_id.strip("0123456789abcdef"):
            return Found("silent", detail=f"{self.address} answered with the image ID {plain(image_id, 80)}")
        return Found("has", image_id)

    def _connect(self) -> APIClient:
        """Make a client that looks at nothing but what a phase looks at.

        docker-py and requests find config.json, contexts, proxies, certificates and netrc by the environment.
        """
        os.environ.clear()  # the phase has a copy of its own
        os.environ["HOME"] = os.devnull
        import warnings

        warnings.simplefilter("ignore")  # a step may fail by any output to stderr
        from docker.api.client import APIClient  # fourteen bare interpreter starts
        from docker.tls import TLSConfig

        tls: TLSConfig | bool = False
        if certificates := self._variables.get("DOCKER_CERT_PATH"):
            tls = TLSConfig(
                client_cert=(f"{certificates}/cert.pem", f"{certificates}/key.pem"),
                ca_cert=f"{certificates}/ca.pem",
                verify=bool(self._variables.get("DOCKER_TLS_VERIFY")),
            )

        class Client(APIClient):
            max_redirects = property(lambda _: 0, lambda *_: None)  # Moby's client follows none (`CheckRedirect`)

        version = self._variables.get("DOCKER_API_VERSION") or "auto"
        # A timeout may be parts of a second.
        return Client(base_url=self._url, tls=tls, version=version, timeout=self._timeout)  # type: ignore[arg-type]

    def _reason(self, problem: BaseException) -> str:
        """Return in a few words why an answer wasn't to be had: those of the first cause, without secrets."""
        cause: BaseException | None = problem
        words = ""
        while cause is not None:
            if isinstance(cause, TimeoutError):
                return f"no answer within {self._timeout:g} s; --timeout raises it"
            system = cause.strerror.lower() if isinstance(cause, OSError) and cause.strerror else ""
            words = getattr(cause, "explanation", None) or system or words or str(cause) or type(cause).__name__
            cause = cause.__cause__ or cause.__context__
        words = str(words).replace(self._url, self.address)
        return plain(" ".join("***" if "@" in word else word for word in words.split()), 150)
