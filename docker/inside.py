"""What an image holds and may do, before it serves anything."""

import json
from pathlib import Path, PurePosixPath

from docker.engine import Config, Engine, EngineError
from docker.images import version
from docker.table import Table

CONTENTS = Path(__file__).with_name("contents.py")
PYTHON = "/opt/viola/bin/python"
MAX_BYTES = 650_000_000
INTERPRETER = "/usr/bin/python3.11"
ENTRY_POINTS = "/opt/viola/bin"  # text that Python runs, one for each command of a package
WRITABLE = {"/tmp"}
NO_CAPABILITY = "0000000000000000"


def describe(engine: Engine, tag: str, table: Table) -> None:
    """Size, labels, user, and how it is started."""
    config, size = engine.config(tag), engine.size(tag)
    table.proof("size", f"{size / 1e6:.0f} MB (at most {MAX_BYTES / 1e6:.0f})", size <= MAX_BYTES)
    table.proof("user", config.user, config.user.split(":")[0].isdigit() and config.user[0] != "0")
    entry = PurePosixPath((config.entrypoint or [""])[0])
    table.proof(
        "starts without a shell",
        " ".join(config.entrypoint + config.command),
        entry.is_absolute() and entry.name not in ("sh", "bash"),
    )
    table.proof("health check without a shell", *_healthcheck(config))
    labelled = config.labels.get("org.opencontainers.image.version")
    table.proof("version on the label", labelled, labelled == version())
    table.figure("revision", config.labels.get("org.opencontainers.image.revision"))


def look(engine: Engine, tag: str, table: Table) -> None:
    """Walk through the running image."""
    run = engine.run(tag, [PYTHON, "-c", CONTENTS.read_text()], {}, "none")
    if run.returncode:
        raise EngineError(f"the image's Python ended with {run.returncode}: {run.stderr.strip()}")
    found = json.loads(run.stdout)
    programs = [path for path in found["programs"] if not path.startswith(f"{ENTRY_POINTS}/")]
    table.proof("runs as", f"{found['uid']}:{found['gid']}", found["uid"] != 0)
    table.proof("capabilities", found["capabilities"], found["capabilities"] == NO_CAPABILITY)
    table.proof("programs", ", ".join(programs), programs == [INTERPRETER])
    table.proof("set-user-id files", len(found["privileged"]), not found["privileged"])
    writable = {path for path in found["writable"] if not path.startswith("/dev/")}
    table.proof("can be written", ", ".join(sorted(writable)), writable == WRITABLE)
    table.proof(
        "torch, pip, what builds packages", found["unwanted"] or "none", not found["unwanted"]
    )
    table.proof("what it needs can be loaded", found["broken"] or "all", not found["broken"])
    packages = f"{found['distributions']} Python, {found['debian']} Debian"
    table.figure("packages", packages)
    shipped = found["sbom_components"]
    table.proof("components in the SBOM", shipped, shipped > found["distributions"])


def start_offline(engine: Engine, tag: str, table: Table) -> None:
    """Everything that a start does, where there is no network at all."""
    entry = engine.config(tag).entrypoint
    run = engine.run(tag, [*entry, "serve", "--check"], {}, "none")
    said = (run.stdout or run.stderr).strip().splitlines()
    table.proof("starts without a network", said[-1] if said else "", run.returncode == 0)


def _healthcheck(config: Config) -> tuple[str, bool]:
    command = config.healthcheck
    return " ".join(command), bool(command) and PurePosixPath(command[0]).is_absolute()
