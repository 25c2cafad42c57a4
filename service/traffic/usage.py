"""Who has used how much since the process started: requests and seconds of audio, by key.

Bills and dashboards want these sums; `quotas.py` decides what may still be used. Each process
counts for itself; Prometheus adds up several of them, or Redis does where they share one.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from service.traffic.quotas import Caller
from service.traffic.shared_accounts import SharedAccounts, SharedUse, Sums


class Usage:
    """The sums by the names of keys; those of an open service stand under None.

    Args:
        shared: the sums of all replicas, to which these are added.
    """

    def __init__(self, shared: SharedAccounts | None = None) -> None:
        self.since = datetime.now(UTC)
        self.by_key: dict[str | None, Sums] = {}
        self._shared = shared

    def know(self, keys: Iterable[str]) -> None:
        """List these keys, with 0, before they are used."""
        for key in keys:
            self._of(key)

    def asked(self, caller: Caller) -> None:
        """Count a request of this caller."""
        self._of(caller.key).requests += 1
        if self._shared is not None:
            self._shared.count(caller.key, requests=1)

    def heard(self, caller: Caller, audio_s: float) -> None:
        """Count seconds of audio that were decoded for this caller."""
        caller.meter.audio_s += audio_s
        self._of(caller.key).audio_s += audio_s
        if self._shared is not None:
            self._shared.count(caller.key, audio_s=audio_s)

    async def of_all_replicas(self) -> SharedUse | None:
        """The sums of all replicas, with 0 for keys not used yet; None: only this one's are known.

        They are also unknown while Redis is down.
        """
        use = None if self._shared is None else await self._shared.used()
        if use is None:
            return None
        unused = {key: Sums() for key in self.by_key if key not in use.by_key}
        return SharedUse(use.since, use.by_key | unused)

    def _of(self, key: str | None) -> Sums:
        return self.by_key.setdefault(key, Sums())
