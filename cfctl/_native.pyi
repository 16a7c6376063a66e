"""The typed face of the C core."""

# Clock: ticks and published time.

def ticks() -> int:
    """Return the current tick of the selected source."""

def now_ns() -> int:
    """Return nanoseconds of the published reference clock, of CLOCK_MONOTONIC_RAW before publication."""

def tick_source() -> tuple[str, str, str]:
    """Return the tick source ("tsc", "cntvct" or "os"), the gate's name and why it was chosen."""

def os_clock_ns(clock_id: int, /) -> int:
    """Return nanoseconds of an OS clock, also where the vDSO's read faults; raises OSError."""

def clock_publish(base_tick: int, base_ns: int, mult: int, shift: int, clock_id: int, /) -> None:
    """Make a line the clock of now_ns; raises ValueError for mult 0 or a shift outside 1..64."""

def clock_withdraw() -> None:
    """Let now_ns read the reference clock of the last published line again."""

def clock_published() -> tuple[int, int, int, int, int] | None:
    """Return the published line as it was given to clock_publish, or None."""

# Clock: sampling and costs. All of these release the interpreter lock.

class PairSampler:
    """Bracketed readings of a reference clock in clusters; for one thread at a time."""

    def __new__(cls, clusters: int, pairs: int) -> PairSampler: ...
    def sample(self, index: int, clock_id: int, /) -> None:
        """Take the pairs of one cluster (about 140 ns each); raises OSError for an unknown clock."""

    def narrowest(self, index: int, /) -> tuple[int, int, int]:
        """Return (middle tick, ns, width in ticks) of a cluster's narrowest pair."""

    def centre(
        self, index: int, ns_per_tick: float, /
    ) -> tuple[int, int, float, float, int, int, int, int] | None:
        """Return a cluster's centre, None when no pair can be used.

        (tick, whole ns, fraction ns, standard error ns, kept pairs, pairs dropped for a change of
        CPU, least width in ticks, CPU or -1). The slope must be right to about 5 ppm.
        """

    def pairs(self, index: int, /) -> list[tuple[int, int, int, int]]:
        """Return a cluster's pairs as (tick before, ns, width in ticks, CPU)."""

class StampRing:
    """Raw stamps (id, tick), the oldest overwritten when the ring is full."""

    def __new__(cls, capacity: int) -> StampRing: ...
    def __len__(self) -> int: ...
    def stamp(self, id: int, /) -> None:
        """Record an id of 0 to 2**64 - 1 with the current tick; about 10 ns."""

    def read(self) -> list[tuple[int, int]]:
        """Return the held stamps as (id, tick), the oldest first."""

    def clear(self) -> None:
        """Forget all stamps and the count of the overwritten."""

    @property
    def capacity(self) -> int:
        """Return how many stamps the ring holds: the capacity asked for, up to a power of two."""

    @property
    def overwritten(self) -> int:
        """Return how many stamps were overwritten by later ones."""

def read_costs(kind: int, reads: int, batches: int, /) -> list[int]:
    """Return the ns that each batch of reads of a clock took; kinds as in native/cost.h."""

def tick_increments(reads: int, /) -> dict[int, int]:
    """Return how often each increment in ticks was seen between two neighbouring reads."""

def cpu_offset(cpu_a: int, cpu_b: int, exchanges: int, timeout_ns: int, /) -> tuple[int, int, int, int]:
    """Return (least b - a, least a - b, warps, exchanges) of ping-pongs, in ticks; raises OSError."""

def clock_discipline() -> tuple[int, int, int, int, int, int]:
    """Return adjtimex(2)'s state, status, freq (2**-16 ppm), tick, maxerror and esterror (us)."""

def cpuid(leaf: int, subleaf: int = 0, /) -> tuple[int, int, int, int] | None:
    """Return (eax, ebx, ecx, edx) of a CPUID leaf, None where there is none."""

def stated_counter_hz() -> int | None:
    """Return the rate the CPU itself states for its counter (CNTFRQ_EL0), None where it states none."""
