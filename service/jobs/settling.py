"""Charges keys with what their jobs decode, whichever process works on them.

Workers write the seconds beside the results; a process that serves takes them from the quotas by
which it admits requests.
"""

from functools import partial

from service.collections.job_records import Charge
from service.queueing import Queueing
from service.traffic.gate import Gate
from service.traffic.quotas import Caller


async def settled(queueing: Queueing, gate: Gate) -> None:
    """Charge for jobs until cancelled."""
    await queueing.settle(partial(_charge, gate))


def _charge(gate: Gate, charge: Charge) -> None:
    if not charge.owner:
        caller = Caller.of(None, charge.network.partition("/")[0], gate.quotas.usual)
        gate.quotas.charge(caller, charge.audio_s)
        return
    for key in gate.keyring.keys:
        if key.name == charge.owner:
            gate.quotas.charge(Caller.of(key, None, gate.quotas.usual), charge.audio_s)
