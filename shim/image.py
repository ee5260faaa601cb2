"""`builder` and `check --image`: a copy of an image with the drop-ins in it, and whether an image needs them.

They are for a person at a terminal, and so ask the daemon that the docker CLI would. No code from an image is executed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import docker.utils

from shim import __version__
from shim.call import WRAPPED
from shim.daemon import own_platform
from shim.errors import ShimError, WrongUse
from shim.install import install
from shim.log import plain
from shim.policy import is_reference

Tell = Callable[[str], None]
LIFECYCLE = "/cnb/lifecycle"
_AFFECTED = ("0.10", "0.11")
_LABEL = f"analyzed-shim.version={__version__}"
_PLATFORM = own_platform()
_MOST_BYTES, _MOST_FILES = 500_000_000, 10_000  # ten times a lifecycle directory with the drop-ins


def builder(image: str, tag: str, push: bool, docker_host: str | None, tell: Tell) -> str:
    """Copy an image, with the drop-ins in its lifecycle directory and its configuration as it was.

    It is a builder or lifecycle image, and is pulled if the daemon (else the docker CLI's) doesn't have it. `tell` is
    told each step, and how far one is that takes longer than a second. Returns `NAME@sha256:...` of what was pushed, or
    the copy's ID.

    Raises WrongUse: the tag can't be a new image's, or the image is for another architecture. ShimError: a step failed.
    Nothing is left but what was pulled, and the copy if it can't be pushed.
    """
    repository, _, version = tag.rpartition(":") if ":" in tag.rpartition("/")[2] else (tag, "", "latest")
    if "@" in tag or not is_reference(tag):
        raise WrongUse(f"{plain(tag)} can't be a new image's tag", "name one such as registry.example/builder:1.0")
    with _connected(docker_host) as client, tempfile.TemporaryDirectory(prefix="analyzed-shim-") as temporary:
        found = _have(client, image, tell)
        if (theirs := plain(f"{found['Os']}/{found['Architecture']}", 40)) != _PLATFORM:
            way_out = f"run builder on {theirs}, or docker pull --platform {_PLATFORM} {image} first"
            raise WrongUse(f"{image} is for {theirs}, and this machine for {_PLATFORM}", way_out)
        copied, context = pathlib.Path(temporary, "lifecycle.tar"), pathlib.Path(temporary, "context")
        members = _copy_out(client, found["Id"], image, copied, tell)
        with _step(f"extracting {LIFECYCLE} of {image}"), tarfile.open(copied) as archive:
            _extract(archive, members, context)
        tell(f"installing the drop-ins for {', '.join(WRAPPED)}")
        install(str(context / "lifecycle"), LIFECYCLE)
        made = _built(client, found["Id"], context, f"{repository}:{version}", tell)
        if not push:
            return made
        with _step(f"pushing {repository}:{version}", tell) as follow:
            return f"{repository}@{follow(client.push(repository, version, stream=True, decode=True))}"


def check_image(image: str, docker_host: str | None, tell: Tell) -> list[str]:
    """Return in lines whether an image needs the drop-ins, and has them. Takes and raises what `builder` does."""
    with _connected(docker_host) as client, tempfile.TemporaryDirectory(prefix="analyzed-shim-") as temporary:
        found = _have(client, image, tell)
        members = _copy_out(client, found["Id"], image, pathlib.Path(temporary, "lifecycle.tar"), tell)
        version, apis, extensions = _described((found.get("Config") or {}).get("Labels") or {})
    names = "\n".join(member.name for member in members)
    has = [phase for phase in WRAPPED if f"lifecycle/{phase}.real" in names.split("\n")]
    shim = re.search(r"/analyzed_shim-([\w.+]+)\.dist-info", names) if has else None
    answer, reason = _affected(version, apis, extensions, has)
    lines = [
        f"image: {image}, for {plain(found['Os'], 20)}/{plain(found['Architecture'], 20)}",
        f"lifecycle: {version or 'unknown'}, Platform APIs {', '.join(apis) or 'unknown'}",
        f"extensions: {extensions}",
        f"drop-ins: {', '.join(has) or 'none'}{f' (analyzed-shim {shim[1]})' if shim else ''}",
        f"affected: {answer}: {reason}",
    ]
    if answer != "no" and apis:
        if extensions == "yes":  # it is a builder; they run no phase in another image
            lines.append(f"java-buildpack-client and Quarkus, at 0.10: {'yes' if '0.10' in apis else 'no'}")
        lines.append(f"pack 0.29 and later, at {apis[-1]}: {'yes' if apis[-1] in _AFFECTED else 'no'}")
        lines.append(f"scripts, at {' or '.join(api for api in apis if api in _AFFECTED)}: yes")
        lines.append(f"to do: analyzed-shim builder {image} --tag NAME")
    return lines


def _described(labels: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """Return an image's lifecycle version, its Platform APIs from the oldest on, and whether it has extensions."""
    metadata = _table(labels.get("io.buildpacks.builder.metadata"))
    lifecycle = _table(metadata.get("lifecycle"))
    version = plain(labels.get("io.buildpacks.lifecycle.version") or lifecycle.get("version") or "", 40)
    platform = _table(_table(labels.get("io.buildpacks.lifecycle.apis") or lifecycle.get("apis")).get("platform"))
    listed = [*(platform.get("deprecated") or ()), *(platform.get("supported") or ())]
    known = sorted({api for api in map(str, listed) if re.fullmatch(r"\d{1,4}\.\d{1,4}", api)}, key=_numbers)
    if metadata.get("extensions") or labels.get("io.buildpacks.buildpack.order-extensions", "[]") not in ("[]", "null"):
        return version, known, "yes"
    # A lifecycle image has the metadata too, with nothing but the lifecycle in it.
    return version, known, "no" if {"buildpacks", "extensions", "stack"}.intersection(metadata) else "unknown"


def _table(value: object) -> dict[str, Any]:
    """Return an object of JSON, or the one in a text; empty if it is anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else {}


def _numbers(version: str) -> list[int]:
    found = re.match(r"v?(\d{1,6}(?:\.\d{1,6})*)", version)
    return [int(number) for number in found[1].split(".")] if found else []


def _affected(version: str, apis: list[str], extensions: str, drop_ins: list[str]) -> tuple[str, str]:
    rows = (
        (len(drop_ins) == len(WRAPPED), "no", "the drop-ins are installed"),
        ([] < _numbers(version) < [0, 17], "no", "lifecycles before 0.17 don't change run-image.reference"),
        (extensions == "no", "no", "without image extensions the restorer looks nothing up"),
        (not apis, "unknown", "no label says which Platform APIs its lifecycle has"),
        (not set(apis).intersection(_AFFECTED), "no", "it has neither Platform API 0.10 nor 0.11"),
        (extensions == "unknown", "unknown", "only with a builder that has image extensions"),
        (True, "yes", "at Platform API 0.10 and 0.11 its restorer looks the run image up in the registry"),
    )
    return next((answer, reason) for holds, answer, reason in rows if holds)


@contextlib.contextmanager
def _connected(docker_host: str | None) -> Iterator[docker.APIClient]:
    """Connect to the daemon of the option, else of DOCKER_HOST, else of the docker CLI's context."""
    with _step("connecting to the daemon"):
        host = docker_host or os.environ.get("DOCKER_HOST", "")
        settings: dict[str, Any] = {**docker.utils.kwargs_from_env({**os.environ, "DOCKER_HOST": host})}
        if "base_url" not in settings:
            context = docker.ContextAPI.get_context(os.environ.get("DOCKER_CONTEXT"))
            if context is None:
                raise ShimError("the docker CLI's current context was not found", "docker context ls")
            settings = {"base_url": context.Host, "tls": context.TLSConfig or False}
        settings["version"] = os.environ.get("DOCKER_API_VERSION") or "auto"
        client = docker.APIClient(timeout=600, use_ssh_client=True, **settings)
    with contextlib.closing(client), _step("working on the image"):
        yield client


@contextlib.contextmanager
def _step(what: str, tell: Tell | None = None) -> Iterator[Callable[[Iterable[dict[str, Any]]], str]]:
    """Tell a step, and have it end in one line: docker-py raises whatever a daemon or a config.json brings about.

    What it yields follows the daemon's messages, and returns the digest that they tell.
    """
    told = time.monotonic()
    if tell:
        tell(what)

    def follow(messages: Iterable[dict[str, Any]]) -> str:
        nonlocal told
        digest = ""
        for message in messages:
            if "error" in message:
                raise RuntimeError(message["error"])
            line = plain(" ".join(str(message.get(part, "")) for part in ("id", "status", "progress")))
            if found := re.search("digest: (sha256:[0-9a-f]{64})", line, re.IGNORECASE):
                digest = found[1]
            if tell and line and time.monotonic() - told >= 1:
                told = time.monotonic()
                tell(f"{what}: {plain(line, 80)}")
        return digest

    try:
        yield follow
    except ShimError:
        raise
    except Exception as problem:
        said = plain(getattr(problem, "explanation", None) or str(problem) or type(problem).__name__)
        raise ShimError(f"{what}: {re.sub(r'//[^ ]*@', '//***@', said)}") from None


def _inspected(client: docker.APIClient, reference: str) -> dict[str, Any]:
    """Return what the daemon says of an image; empty if it doesn't have it."""
    with contextlib.suppress(docker.errors.NotFound):
        found = dict(client.inspect_image(reference))  # type: ignore[no-untyped-call]
        return found if found.get("Os") else {}  # the containerd store may have content for other platforms only
    return {}


def _have(client: docker.APIClient, image: str, tell: Tell) -> dict[str, Any]:
    """Return what the daemon says of an image, which is pulled if it isn't there."""
    if not is_reference(image):
        raise WrongUse(f"{plain(image)} is not an image reference", "name one such as registry.example/builder:1.0")
    found = _inspected(client, image)
    if not found:
        with _step(f"pulling {image}", tell) as follow:
            repository, version = docker.utils.parse_repository_tag(image)
            follow(client.pull(repository, version or "latest", stream=True, decode=True, platform=_PLATFORM))
            found = _inspected(client, image)
            if not found:
                raise ShimError(f"{image} was pulled, but not for {_PLATFORM}", "name an image for this machine")
    return found


def _copy_out(client: docker.APIClient, image_id: str, image: str, path: pathlib.Path, tell: Tell) -> list[Any]:
    """Copy an image's lifecycle directory into a tar file, by a container that is never started; return its members."""
    none = ShimError(f"{image} has no lifecycle in {LIFECYCLE}", "name a builder or lifecycle image")
    large = ShimError(f"{LIFECYCLE} in {image} is larger than a lifecycle", none.tip)
    size, members = 0, []
    with _step(f"copying {LIFECYCLE} out of {image}", tell):
        container = client.create_container(image_id, ["none"])["Id"]
        try:
            with contextlib.closing(client.get_archive(container, LIFECYCLE)[0]) as chunks, path.open("wb") as file:
                for chunk in chunks:
                    size += file.write(chunk)
                    if size > _MOST_BYTES:
                        raise large
        except docker.errors.NotFound:
            raise none from None
        finally:
            client.remove_container(container, v=True, force=True)
        with tarfile.open(path) as archive:
            for member in archive:
                members.append(member)
                size -= member.size
                if size < 0 or len(members) > _MOST_FILES:
                    raise large
        if not {member.name for member in members}.issuperset(f"lifecycle/{phase}" for phase in WRAPPED):
            raise none
    return members


def _extract(archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], target: pathlib.Path) -> None:
    """Extract files, directories and links, each into a directory that this made, so that nothing leads elsewhere."""
    target.mkdir()
    made = {target}
    for member in members:
        path = target / member.name
        content = archive.extractfile(member) if member.isreg() or member.islnk() else None
        if path.parent not in made or not (content or member.isdir() or member.issym()):
            raise ShimError(
                f"a lifecycle has no file such as {plain(member.name)}", "name a builder or lifecycle image"
            )
        if content:
            with content, path.open("xb") as file:
                shutil.copyfileobj(content, file)
        elif member.isdir():
            path.mkdir()
            made.add(path)
        else:
            path.symlink_to(member.linkname)
            continue
        path.chmod(member.mode & 0o777 | 0o700 * member.isdir())


def _built(client: docker.APIClient, image_id: str, context: pathlib.Path, tag: str, tell: Tell) -> str:
    """Build the copy, of files that are all new: the containerd store leaves out of a layer what is as it was below."""
    (context / "Dockerfile").write_text(f"FROM {image_id}\nLABEL {_LABEL}\nCOPY --chown=0:0 lifecycle {LIFECYCLE}\n")
    for path in context.rglob("*"):
        os.utime(path, follow_symlinks=False)
    with _step(f"building {tag}", tell) as follow:
        before = _inspected(client, tag)
        try:
            follow(client.build(str(context), tag, rm=True, forcerm=True, decode=True))
            return str(_inspected(client, tag)["Id"])
        finally:
            left = client.images(quiet=True, filters={"dangling": True, "label": _LABEL})
            for one in filter(None, (before.get("Id"), *left)):
                with contextlib.suppress(docker.errors.APIError):  # a container's
                    if not _inspected(client, one).get("RepoTags"):  # java-buildpack-client fails if there is one
                        client.remove_image(one)
