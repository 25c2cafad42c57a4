"""Docker, Podman or buildah, as far as proving an image needs them: build, look, run, serve.

Docker and Podman take the same commands. buildah builds images but runs them for building alone, so
there the image is mounted and started by `unshare` and `chroot`, as root: a root that cannot be
written, namespaces of its own for processes and mounts, the image's user and environment.
"""

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

Network = Literal["none", "host"]
HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
WAIT_S = 60

# What `docker run --read-only --tmpfs /tmp` does, in words of mount(8); the command comes after
SANDBOX = """
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind /dev "$root/dev"
cd "$root"
exec env -i "$@"
"""


class EngineError(RuntimeError):
    """No engine is there, or it did not do what it was told."""


@dataclass(frozen=True)
class Config:
    """What an image says of how it is run."""

    user: str
    entrypoint: list[str]
    command: list[str]
    environment: dict[str, str]
    labels: dict[str, str]
    healthcheck: list[str]

    @classmethod
    def of(cls, fields: Mapping[str, Any], healthcheck: Mapping[str, Any] | None) -> "Config":
        """From the image's own description."""
        return cls(
            user=fields.get("User") or "",
            entrypoint=fields.get("Entrypoint") or [],
            command=fields.get("Cmd") or [],
            environment=dict(item.split("=", 1) for item in fields.get("Env") or ()),
            labels=fields.get("Labels") or {},
            healthcheck=(healthcheck or {}).get("Test", [])[1:],
        )


@dataclass
class Serving:
    """A container that serves; `pid` is its first process, seen from here, `port` where it listens.

    `process` is the engine's, and ends with it.
    """

    pid: int
    port: int
    process: "subprocess.Popen[bytes]"

    def terminate(self) -> None:
        """Send SIGTERM to its first process, as every orchestrator does."""
        os.kill(self.pid, signal.SIGTERM)

    def resident_bytes(self) -> int | None:
        """Resident memory of it and its children; None where they cannot be seen."""
        pids = [self.pid, *_descendants(self.pid)]
        try:
            return sum(_resident_bytes(pid) for pid in pids)
        except OSError:
            return None

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(WAIT_S)


class Engine(Protocol):
    """What the proofs ask of an engine."""

    name: str

    def build(self, file: Path, tag: str, arguments: Mapping[str, str], context: Path) -> None:
        """Build an image."""

    def config(self, tag: str) -> Config:
        """How the image is run."""

    def size(self, tag: str) -> int:
        """Bytes of the image, its base included, as they lie on the disk."""

    def run(
        self, tag: str, command: Sequence[str], env: Mapping[str, str], network: Network
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in place of the image's own, hardened, until it ends."""

    def serving(
        self, tag: str, port: int, env: Mapping[str, str]
    ) -> AbstractContextManager[Serving]:
        """Run the image's own command, hardened, on this machine's network; ended at the end."""


def find(name: str | None = None) -> Engine:
    """The engine of this name, or the first of docker, podman and buildah that answers.

    Raises:
        EngineError: there is none.
    """
    for candidate in [name] if name else ["docker", "podman", "buildah"]:
        if shutil.which(candidate) and _answers(candidate):
            return Buildah() if candidate == "buildah" else Docker(candidate)
    wanted = name or "docker, podman or buildah"
    raise EngineError(f"no {wanted} here that answers: install one, or start its daemon")


def _answers(name: str) -> bool:
    """A client without its daemon does not."""
    return subprocess.run([name, "info"], capture_output=True).returncode == 0


class Docker:
    """Docker, or Podman under its own name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, file: Path, tag: str, arguments: Mapping[str, str], context: Path) -> None:
        """Build an image; Podman needs to be told to keep the health check."""
        options = ["--format=docker"] if self.name == "podman" else []
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        _told([self.name, "build", *options, *given, "-t", tag, "-f", file, context])

    def config(self, tag: str) -> Config:
        """How the image is run."""
        (image,) = json.loads(_output([self.name, "image", "inspect", tag]))
        fields = image["Config"]
        return Config.of(fields, fields.get("Healthcheck") or image.get("Healthcheck"))

    def size(self, tag: str) -> int:
        """Bytes of the image."""
        (image,) = json.loads(_output([self.name, "image", "inspect", tag]))
        return int(image["Size"])

    def run(
        self, tag: str, command: Sequence[str], env: Mapping[str, str], network: Network
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in place of the image's own."""
        first, *rest = command
        options = [*HARDENED, f"--network={network}", f"--entrypoint={first}", *_given(env)]
        arguments = [self.name, "run", "--rm", *options, tag, *rest]
        return subprocess.run(arguments, capture_output=True, text=True)

    @contextmanager
    def serving(self, tag: str, port: int, env: Mapping[str, str]) -> Iterator[Serving]:
        """Run the image's own command."""
        name = f"viola-check-{uuid.uuid4().hex[:8]}"
        options = [*HARDENED, "--network=host", f"--name={name}", *_given(_at(port, env))]
        process = subprocess.Popen(
            [self.name, "run", "--rm", *options, tag], stderr=subprocess.DEVNULL
        )
        try:
            yield Serving(self._pid(name, process), port, process)
        finally:
            subprocess.run([self.name, "rm", "--force", name], capture_output=True)
            process.wait(WAIT_S)

    def _pid(self, name: str, process: "subprocess.Popen[bytes]") -> int:
        template = ["inspect", "--format", "{{.State.Pid}}", name]
        while process.poll() is None:
            asked = subprocess.run([self.name, *template], capture_output=True, text=True)
            if asked.returncode == 0 and int(asked.stdout) > 0:
                return int(asked.stdout)
        raise EngineError(f"{self.name} could not start the image: exit code {process.returncode}")


class Buildah:
    """buildah; `BUILDAH_ISOLATION` chooses how it builds."""

    name = "buildah"

    def build(self, file: Path, tag: str, arguments: Mapping[str, str], context: Path) -> None:
        """Build an image in Docker's format, which alone has health checks."""
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        options = ["--format=docker", "--pull=false"]  # a base that is here already will do
        _told(["buildah", "build", *options, *given, "-t", tag, "-f", file, context])

    def config(self, tag: str) -> Config:
        """How the image is run."""
        image = json.loads(_output(["buildah", "inspect", "--type=image", tag]))
        healthcheck = image["Docker"]["config"].get("Healthcheck")
        return Config.of(image["OCIv1"]["config"], healthcheck)

    def size(self, tag: str) -> int:
        """Bytes of the files in the image."""
        with self._mounted(tag) as root:
            return int(_output(["du", "--summarize", "--bytes", root]).split()[0])

    def run(
        self, tag: str, command: Sequence[str], env: Mapping[str, str], network: Network
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in place of the image's own."""
        with self._mounted(tag) as root:
            arguments = self._sandboxed(self.config(tag), root, command, env, network)
            return subprocess.run(arguments, capture_output=True, text=True)

    @contextmanager
    def serving(self, tag: str, port: int, env: Mapping[str, str]) -> Iterator[Serving]:
        """Run the image's own command."""
        config = self.config(tag)
        command = config.entrypoint + config.command
        with self._mounted(tag) as root:
            arguments = self._sandboxed(config, root, command, _at(port, env), "host")
            process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
            container = Serving(_child(process), port, process)
            try:
                yield container
            finally:
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(container.pid, signal.SIGKILL)
                process.wait(WAIT_S)

    @contextmanager
    def _mounted(self, tag: str) -> Iterator[str]:
        container = _output(["buildah", "from", "--pull-never", tag]).strip()
        try:
            yield _output(["buildah", "mount", container]).strip()
        finally:
            _output(["buildah", "rm", container])

    @staticmethod
    def _sandboxed(
        config: Config, root: str, command: Sequence[str], env: Mapping[str, str], network: Network
    ) -> list[str]:
        options = ["--mount", "--pid", "--fork", "--kill-child"]
        options += ["--net"] if network == "none" else []
        variables = [f"{key}={value}" for key, value in {**config.environment, **env}.items()]
        user = f"--userspec={config.user or '0:0'}"
        as_user = [_path("setpriv"), "--no-new-privs", _path("chroot"), user, "--groups=", root]
        in_sandbox = ["sh", "-euc", SANDBOX, "sh", root]
        return ["unshare", *options, *in_sandbox, *variables, *as_user, *command]


def _child(process: "subprocess.Popen[bytes]") -> int:
    """The process that `unshare` has forked: the first one of the container."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
    raise EngineError(f"the image could not be started: exit code {process.returncode}")


def _path(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise EngineError(f"starting an image without docker or podman needs {program}")
    return path


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield child
            yield from _descendants(child)


def _resident_bytes(pid: int) -> int:
    """The process's part of the memory: pages that several share are divided among them."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    return int(rollup[rollup.index("Pss:") + 1]) * 1024


def _at(port: int, env: Mapping[str, str]) -> dict[str, str]:
    return {"VIOLA_HOST": "127.0.0.1", "VIOLA_PORT": str(port), **env}


def _given(env: Mapping[str, str]) -> list[str]:
    return [f"--env={key}={value}" for key, value in env.items()]


def _told(command: Sequence[str | Path]) -> None:
    if subprocess.run(command).returncode:
        raise EngineError(f"failed: {' '.join(map(str, command))}")


def _output(command: Sequence[str | Path]) -> str:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise EngineError(f"failed: {' '.join(map(str, command))}: {run.stderr.strip()}")
    return run.stdout
