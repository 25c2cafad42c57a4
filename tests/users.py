"""Commands as somebody who may not read and write every file, though the tests run as root."""

import os
import shutil

_CAPABILITIES = "-dac_override,-dac_read_search"
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

AS_NO_SUPERUSER = ["setpriv", f"--bounding-set={_CAPABILITIES}"] if IS_ROOT else []
"""What stands before a command."""

CAN_BE_REFUSED = os.name == "posix" and (not IS_ROOT or shutil.which("setpriv") is not None)
