"""When a publisher's message is dispatched within the quantum: slots and the golden-ratio stagger."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cfctl.errors import InputError

# The golden ratio less 1: multiples of it fill [0, 1) more evenly than of any other number
# (three-gap theorem; Sos 1958).
GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class QuantumOffset:
    """A deterministic stagger of dispatch slots, so that publishers do not all come at once.

    `amplitude`: the share of the quantum the slots are spread over, 0 to 1; `frequency`: how fast
    the slots rotate, Hz, so that no publisher is always last; `phase`: ns added to every slot.
    Service without any queueing wants amplitude * quantum >= about 2.3 * publishers * service time
    (the smallest of the three gaps). Raises InputError for values out of their range.
    """

    amplitude: float
    frequency: float = 0.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        values = (self.amplitude, self.frequency, self.phase)
        if not all(isinstance(each, (int, float)) and math.isfinite(each) for each in values):
            raise InputError(
                f"QuantumOffset{values} cannot be used.",
                "The amplitude, the frequency in Hz and the phase in ns are finite numbers.",
            )
        if not 0.0 <= self.amplitude <= 1.0:
            raise InputError(
                f"QuantumOffset.amplitude {self.amplitude} cannot be used.",
                "It is a share of the quantum, 0 to 1.",
            )

    def slot_ns(self, publisher: int, at_ns: int, quantum_ns: int) -> int:
        """Return the slot of publisher number `publisher` in the quantum at `at_ns`, ns after its start.

        phase + amplitude * quantum * frac(publisher * 0.618034 + frequency * t): within [phase, phase +
        amplitude * quantum), rounded down. Two publishers whose numbers differ have different slots.
        """
        turn = math.fmod(self.frequency * (at_ns * 1e-9), 1.0)
        share = math.fmod(publisher * GOLDEN, 1.0) + turn
        return math.floor(self.phase + self.amplitude * quantum_ns * (share - math.floor(share)))


def next_slot_ns(now_ns: int, slot_ns: int, quantum_ns: int) -> int:
    """Return the first moment k * quantum + slot that is not before `now_ns`."""
    return now_ns + (slot_ns - now_ns) % quantum_ns
