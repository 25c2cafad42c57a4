"""Which commit of this code made a file."""

import os
import subprocess
from pathlib import Path


def git_commit() -> str:
    """Commit of this code, "-dirty" if it was changed since, empty if it is not in a repository.

    `VIOLA_COMMIT` says it where the code travels without its repository, in a container image.
    """
    if told := os.environ.get("VIOLA_COMMIT"):
        return told
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    commands = (
        ["ls-files", "--error-unmatch", here.name],  # fails in a repository that is not ours
        ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
    )
    output = ""
    for command in commands:
        try:
            run = subprocess.run([*git, *command], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return ""
        output = run.stdout.strip()
    return output
