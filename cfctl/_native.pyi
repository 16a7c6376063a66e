"""The typed face of the C core."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import CodeType, TracebackType
from typing import Any, Generic, Literal, ParamSpec, Self, TypeVar, final

from typing_extensions import Buffer

_P = ParamSpec("_P")
_R = TypeVar("_R")

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

# Segments

SEGMENT_DEFAULT_LIMIT_BYTES: int
HISTOGRAM_BUCKETS: int
HISTOGRAM_SUB_BITS: int

def segment_configure(directory: str, run_id: str | None, limit_bytes: int) -> None:
    """Say where the process's segment shall be; before the first record, and for forked children.

    Raises OSError (ENAMETOOLONG), ValueError for a NUL byte in a name.
    """

def segment_open() -> tuple[str, int]:
    """Open the process's segment if it is not open; return (path, errno).

    With errno 0 the path is the segment's file. Otherwise path is "" and the segment is in
    anonymous memory, seen by this process alone, because of that errno. Never raises but
    MemoryError.
    """

def segment_bytes() -> bytes:
    """Return a copy of the open segment's used part, b"" before it is opened."""

def segment_pause(paused: bool, /) -> bool:
    """Pause instrumentation by name in this process, or resume it; False before a segment is open."""

def timeline_start() -> None:
    """Keep each thread's latest 8192 samples from now on, in 256 KiB per thread."""

def count_folded(name: str, /) -> None:
    """Count a label set of the operation that was folded into another row."""

def is_error(exception: BaseException) -> bool:
    """Return whether an exception is a failure of what it left: any but SystemExit with a status of 0."""

# Histograms: buffers of native uint64, HISTOGRAM_BUCKETS long

def histogram_merge(into: bytearray, source: bytes | bytearray | memoryview) -> None:
    """Add the buckets of `source` to those of `into`, saturating; ValueError unless equally long."""

def histogram_quantiles(histogram: bytes | bytearray | memoryview, quantiles: Sequence[float]) -> list[float]:
    """Return the value (ticks) at each of the ascending quantiles; [] for an empty histogram.

    The value is the middle of the bucket with the sample of rank ceil(q n): error <= 0.39 %.
    ValueError when the quantiles do not ascend, leave 0..1, or the buffer is no histogram.
    """

def histogram_bounds(bucket: int) -> tuple[int, int]:
    """Return the (lowest value, number of values) of a bucket; ValueError beyond the last."""

def histogram_sparse(histogram: bytes | bytearray | memoryview) -> tuple[tuple[int, int], ...]:
    """Return the filled buckets as (bucket, samples); about 3 us and 30 ns for each of them."""

def histogram_since(later: bytes, earlier: bytes, /) -> bytes:
    """Return what each bucket of `later` holds more, 0 where it holds less; ValueError unless equally long."""

def histogram_at_ranks(histogram: bytes, ranks: tuple[int, ...], /) -> tuple[int | None, ...]:
    """Return the buckets that hold the samples of at most 64 ascending ranks from 1; None beyond the last."""

def histogram_below(histogram: bytes, scale: float, edges: tuple[float, ...], /) -> tuple[int, ...]:
    """Return how many samples lie in buckets whose highest value times `scale` is at or below each edge.

    At most 64 ascending edges; saturates at 64 bits.
    """

def histogram_moments(histogram: bytes, /) -> tuple[int, float]:
    """Return (samples, sum of squared distances of their buckets' middles from the mean of these)."""

def sparse_moments(buckets: tuple[tuple[int, int], ...], /) -> tuple[float, float, float]:
    """Return (least sum, most sum, sum of squared distances from the mean) of filled buckets, in ticks.

    The first two bound the sum of the samples, the last is of the buckets' middles.
    """

# Operations

class Operation:
    """A named operation of this process; equal names and labels share one row of the report.

    `with operation:` times a block on this thread (blocks nest; 1024 deep, deeper ones are counted
    as lost). Recording never allocates, locks or makes a syscall after a thread's first sample.
    """

    def __init__(self, name: str, labels: Sequence[tuple[str, str]] = ()) -> None:
        """Raises ValueError for an empty name, a NUL in name or labels, or over 1024 bytes."""
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[tuple[str, str], ...]: ...
    def __enter__(self) -> Operation: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def record_ticks(self, duration_ticks: int, failed: bool = False, /) -> None:
        """Add a sample that was measured elsewhere; ends now."""
    def record_since(self, start_tick: int, failed: bool = False, /) -> None:
        """Add a sample that began at `start_tick` (from ticks()) and ends now."""
    def record(self, duration_ns: int, failed: bool = False, /) -> None:
        """Add a sample of so many nanoseconds; ends now. Its row keeps the unit ns.

        Of values that come faster than every 0.3 ms one in eight reads the clock: first and last
        seen may then be the moment of one of the seven before. About 14 ns.
        """
    def record_many(self, durations_ns: Buffer, /) -> None:
        """Add all values of a contiguous buffer of int64, uint64 or float64 nanoseconds.

        At most 2 ns each; from 4096 on without the interpreter lock. Raises TypeError for another
        type, ValueError for a negative or not finite value: nothing is recorded then.
        """
    def begin(self) -> Span:
        """Return a sample that was begun; its end() records it."""
    def span(self) -> Span:
        """Return a sample that a `with` statement begins and ends."""

@final
class Span:
    """One sample that carries its own start: right across `await`, tasks and threads.

    On no thread's stack, so it has neither parent nor children. One that is never ended is no sample.
    """

    def __enter__(self) -> Span: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    def end(self, failed: bool = False, /) -> None:
        """Record the sample; RuntimeError if it is not running."""

@final
class TimedFunction(Generic[_P, _R]):
    """A callable that records each call of `function` in `operation`, errors counted and re-raised.

    Binds like a function when it is a class attribute; functools.update_wrapper works on it.
    """

    def __init__(self, function: Callable[_P, _R], operation: Operation) -> None: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any: ...

# Pools

class Pool:
    """Objects that are used again; cfctl.Pool and cfctl.BufferPool are what applications use."""

    def __new__(
        cls,
        factory: Callable[[], Any],
        reset: Callable[[Any], object] | None,
        max_idle: int,
        name: str,
        debug: bool = False,
        item_bytes: int = 0,
        zero: bool = False,
    ) -> Self:
        """Return an empty pool; with `item_bytes` of bytearrays of that size, cleared with `zero`."""
    @property
    def name(self) -> str: ...
    def acquire(self) -> Any: ...
    def release(self, item: Any, /) -> None: ...
    def item(self) -> AbstractContextManager[Any]: ...
    def clear(self) -> None:
        """Drop all idle items; they count as discarded."""
    def counters(self) -> dict[str, int]:
        """Return the fields of the kind "pool", and unwatchable and in_segment."""

# Python's own memory

def track_begin() -> None:
    """Count the allocations of the domains mem and obj; NotImplementedError where that is impossible."""

def track_end() -> bool:
    """End one track_begin; False when somebody removed the hooks meanwhile, so that counts are missing."""

def track_counts() -> tuple[int, int, int, int, int, int]:
    """Return allocations, reallocations, frees, requested bytes, allocations above 512 bytes, failures."""

def track_record(name: str, duration_ns: int, counts: tuple[int, int, int, int, int, int], /) -> bool:
    """Add a window to the segment's kind "pymalloc"; False when it has no room."""

def interpreter_collection(is_full: bool, collected: int, uncollectable: int, pause_ns: int, /) -> bool:
    """Add a garbage collection to the segment's kind "interpreter"; False when it has no room."""

def interpreter_facts(gc_enabled: bool, frozen: int, blocks: int, /) -> bool:
    """Share these facts and the heap of malloc in the kind "interpreter"; False when it has no room."""

def clear_garbage(objects: list[Any], /) -> None:
    """Call tp_clear of each object, as the collector does; only for what nothing else refers to."""

def heap_read() -> tuple[int, int, int, int] | None:
    """Return bytes in use, free, mapped by themselves and trimmable of malloc's heap; about 1 us an arena."""

# Instrumentation by name

@final
class Monitor:
    """Times functions that are chosen by `match` when they first run.

    `match(code, module_name)` is called once per code object and returns the Operation to record
    it in, or None to leave it alone from then on. 3.12+: `start`, `finish`, `unwind`,
    `suspend` and `resume` are callbacks for sys.monitoring. 3.11: `install` and `uninstall` set the calling thread's profile
    function.
    """

    def __init__(self, match: Callable[[CodeType, str], Operation | None]) -> None: ...
    def start(self, code: CodeType, offset: int, /) -> object:
        """PY_START: returns sys.monitoring.DISABLE for a code object that is left alone."""
    def finish(self, code: CodeType, offset: int, value: object, /) -> object:
        """PY_RETURN: records. A local event that `match` sets for the code objects it chooses."""
    def unwind(self, code: CodeType, offset: int, error: BaseException, /) -> None:
        """PY_UNWIND: records as failed if the code object is timed; a generator's close is no failure."""
    def suspend(self, code: CodeType, offset: int, value: object, /) -> None:
        """PY_YIELD: a generator or coroutine leaves the stack; a generator's clock stops."""
    def resume(self, code: CodeType, offset: int, error: BaseException | None = None, /) -> None:
        """PY_RESUME and PY_THROW: it goes on where it was suspended."""
    def forked(self) -> None:
        """Take note that this process was just forked off: what is suspended is its parent's to record."""

    def flush(self) -> None:
        """Record the generators that were suspended or dropped; when the program ends."""
    def install(self) -> None: ...
    def uninstall(self) -> None: ...

# Probes: each runs on the calling thread without the GIL until it is done or `stop`, a writable
# buffer of one uint32, is not 0. A distribution is {count, sum, min, max, out_of_range, histogram};
# a load is {involuntary_switches, voluntary_switches, minor_faults, major_faults, run_delay_ns|None}.

PAIR_LOAD_STORE: int
PAIR_CAS: int
PAIR_FUTEX: int
PAIR_PIPE: int
COST_SYSCALL: int
COST_YIELD: int
COST_MINOR_FAULT: int
COST_PIPE: int

def probe_jitter(
    start_tick: int,
    duration_ticks: int,
    threshold_ticks: int,
    inspect: bool,
    capacity: int,
    stop: memoryview,
    /,
) -> dict[str, Any]:
    """Return start_tick, end_tick, turns, handling_ticks, load, gaps (ticks) and kept.

    `kept` holds up to `capacity` of the largest gaps, unordered: struct "<QQII" of start tick, ticks,
    involuntary switches, minor faults.
    """

def probe_wakeup(interval_ns: int, duration_ns: int, stop: memoryview, /) -> dict[str, Any]:
    """Return start_ns, end_ns, overruns, load, latency (ns); raises OSError."""

def probe_pair(
    kind: int,
    cpu_a: int,
    cpu_b: int,
    samples: int,
    round_trips: int,
    samples_a_page: int,
    stop: memoryview,
    /,
) -> dict[str, Any]:
    """Return load_a, load_b, batch (ticks of `round_trips` round trips); raises OSError."""

def probe_cost(kind: int, samples: int, stop: memoryview, /) -> dict[str, Any]:
    """Return batch (operations a sample), load, ticks (of a batch); raises OSError."""

def timer_slack(slack_ns: int = 0, /) -> int:
    """Set the calling thread's timer slack unless 0, and return what it is; raises OSError."""

# perf events: descriptors, opened disabled, that the caller maps, enables and closes

def perf_open_switches() -> int:
    """Open the calling thread's PERF_RECORD_SWITCH records; raises OSError.

    A record is the header and one uint64, CLOCK_MONOTONIC_RAW in ns.
    """

def perf_open_tracepoint(tracepoint_id: int, cpu: int, /) -> int:
    """Open a kernel tracepoint on a CPU, for all tasks; raises OSError.

    A sample is the header and struct "<IIQI": pid, tid, CLOCK_MONOTONIC_RAW in ns, size of the raw
    record that follows and starts with the tracepoint's id as uint16.
    """

def tracefs_mount_privately(target: str | bytes, /) -> None:
    """Mount tracefs for the calling thread alone, until it ends; raises OSError."""

# Hybrid logical clocks

HLC_MAX_OFFSET_NS: int
HLC_GRAIN_NS: int

@final
class Hlc:
    """A hybrid logical clock of a node; counted in the segment (kind "hlc"). Thread-safe.

    A stamp is Unix ns with a counter in its low four bits. `now_ns` stands for the wall clock where a
    test or a simulation brings its own. Numbers out of their range raise InputError, which names it.
    """

    def __new__(cls, node: int, max_offset_ns: int = ...) -> Hlc: ...
    def tick(self, now_ns: int | None = None, /) -> int:
        """Return the stamp of a local event, above all that this clock gave before.

        Raises StateError when the clock has no node id.
        """

    def receive(self, message: int, sender: int, now_ns: int | None = None, /) -> int:
        """Return the stamp of the receipt of a message, above the message's own.

        Raises ClockOffsetError, and the clock is as it was, for a message that is stamped more than
        `max_offset_ns` ahead.
        """

    def now_ns(self) -> int:
        """Return the wall clock it runs on, Unix ns."""

    @property
    def node(self) -> int:
        """Return the node id; 0 = none."""

    @property
    def last(self) -> int:
        """Return the last stamp given, 0 before the first."""

    @property
    def max_offset_ns(self) -> int:
        """Return how far ahead of this clock's time a message may be stamped."""

def process_hlc() -> Hlc:
    """Return the clock of this process; its node is 0 until process_hlc_initialise."""

def process_hlc_initialise(node: int, max_offset_ns: int, /) -> None:
    """Give this process's clock its node id, 1 to 65535."""

# The bus: rings, for one thread at a time each; used through cfctl.bus

DISPATCHER_FIELDS: tuple[str, ...]

@final
class Message:
    """A payload with its id (publisher << 48 | number) and stamps."""

    @property
    def payload(self) -> bytes: ...
    @property
    def id(self) -> int: ...
    @property
    def hlc(self) -> int: ...
    @property
    def published_tick(self) -> int: ...
    @property
    def received_tick(self) -> int: ...
    @property
    def sequence(self) -> int:
        """Return its number on its ring, from 1."""
    @property
    def ring_id(self) -> int: ...
    @property
    def topic(self) -> str: ...
    @property
    def redelivered(self) -> bool:
        """Return whether another member of the group had it and died."""
    @property
    def extended(self) -> bool:
        """Return whether the payload starts with an extension."""

@final
class BusParticipant:
    """A bus's presence in a directory, which its endpoints keep. Raises OSError."""

    def __new__(cls, directory: str) -> BusParticipant: ...
    def close(self) -> None:
        """Give up the lease; idempotent. No endpoint may be in use."""
    def lives(self, id: int, /) -> bool:
        """Return whether the participant of an id lives."""
    @property
    def id(self) -> int: ...
    @property
    def is_open(self) -> bool:
        """Return False in a forked child."""

@final
class Publisher:
    """The writing end of a topic, made by Bus.publisher; for one thread at a time. Making one raises OSError.

    Publishing raises InputError for a payload that is none or too large, StateError for a closed
    publisher, a forked child or space that cannot be had, and ResourceExhausted.
    """

    def __new__(
        cls,
        participant: BusParticipant,
        topic: str,
        capacity: int,
        slot_bytes: int,
        arena_bytes: int,
        overwrite: bool,
        priority: int,
        scheduled: bool,
        spin_ns: int,
        own: bool,
    ) -> Publisher: ...
    def try_publish(self, data: Buffer, /) -> int:
        """Publish at once and return the message's id; ResourceExhausted when the ring is full."""
    def publish(self, data: Buffer, timeout_s: float | None = None) -> int:
        """As try_publish, waiting for room: spins for `spin_ns`, then looks every 50 us."""
    def publish_extended(self, data: Buffer, /) -> int:
        """As try_publish, of a payload that starts with an extension."""
    def publish_many(self, payloads: Sequence[Buffer], /) -> int:
        """Publish the items of a list or tuple until the ring is full; return how many.

        All are checked first: InputError means that none was published.
        """
    def loan(self, size: int, /) -> Loan:
        """Return a context manager that gives `size` bytes of the ring to write into."""
    def wait_for_subscribers(self, n: int = 1, timeout_s: float | None = None) -> int:
        """Wait until n subscriptions or groups are there and return how many are; raises BusTimeout."""
    def counts(self) -> dict[str, int]:
        """Return published, rejected, orphaned, pending (for the slowest reader), high_water and readers."""
    def close(self) -> None:
        """Say that no more comes; idempotent. What was published can still be received."""
    @property
    def topic(self) -> str: ...
    @property
    def ring_id(self) -> int: ...
    @property
    def number(self) -> int:
        """Return the publisher's number, 16 to 65535, which no other live ring of the directory has."""
    @property
    def max_payload(self) -> int:
        """Return the largest payload, in bytes."""
    @property
    def readers(self) -> int:
        """Return how many subscriptions and groups are there."""
    @property
    def closed(self) -> bool: ...

@final
class Loan:
    """A message's place in the ring: published when the `with` block ends, given back on an exception."""

    def __enter__(self) -> memoryview: ...
    def __exit__(self, *error: object) -> Literal[False]: ...
    @property
    def id(self) -> int | None:
        """Return the message's id; None until it is published."""

@final
class MessageView:
    """The next message's payload, in the ring; None at the time-out. The message is taken when the block ends."""

    def __enter__(self) -> memoryview | None: ...
    def __exit__(self, *error: object) -> Literal[False]: ...
    @property
    def id(self) -> int | None:
        """Return the message's id, while it is lent out; None for a copy."""

class RingSubscription:
    """The reading ends of some topics' rings. `wait`: 0 spin, 1 adaptive, 2 park; `flags`: enum cf_seat_flag.

    `hold` gets each Message with an extension and returns what is received instead, None to keep it back; without
    one it is received as it lies on the ring. What receives raises SubscriptionNotFound when it is closed, and StateError in a forked child.
    """

    __slots__ = ()

    def __new__(
        cls,
        participant: BusParticipant,
        topics: tuple[str, ...],
        pattern: str | None,
        id: int,
        wait: int,
        spin_ns: int,
        ordered: bool,
        flags: int,
        history: int,
        group: str | None,
        hold: Callable[[Message], Any] | None,
    ) -> Self: ...
    def try_recv(self) -> bytes | None:
        """Return the next payload, None when there is none."""
    def recv(self, timeout_s: float | None = None) -> bytes | None:
        """As try_recv, waiting, without the interpreter lock; None at the time-out."""
    def recv_many(self, most: int, /) -> list[bytes]:
        """Return the payloads that are there, at most so many."""
    def recv_view(self, timeout_s: float | None = None) -> MessageView:
        """Return a context manager that gives the next payload as a memoryview of the ring.

        A copy where the message cannot be held in its place: on a ring that overwrites, for a lossy subscription, for
        history, and for what went through a dispatcher.
        """
    def done(self) -> None:
        """Say that what this member of a group received last is finished."""
    def counts(self) -> dict[str, int]:
        """Return copies = delivered + dropped + pending, damaged, history, skipped, high_water, oldest_tick
        (0: none), rings, publishers (that have not closed) and unjoined."""
    def _try_recv_message(self) -> Any: ...
    def _recv_message(self, timeout_s: float | None = None) -> Any: ...
    def _wait(self, timeout_s: float | None = None) -> None: ...
    def _release(self, message: object, /) -> bool: ...
    def _close(self) -> bool: ...
    def _fileno(self) -> int: ...
    @property
    def _is_shut(self) -> bool:
        """Return whether it has left its topics: no call is in progress any more."""
    def _publishers(self) -> int: ...
    def _numbers(self) -> list[int]: ...
    def _watermarks(self) -> dict[int, int]: ...

@final
class DispatcherRecord:
    """A bus's dispatcher in the segment (kind "bus_dispatcher")."""

    def __new__(cls, name: str) -> DispatcherRecord: ...
    def add(self, values: tuple[float, ...], /) -> None:
        """Add to the fields, in the order of DISPATCHER_FIELDS; the last three are raised to their value."""

    def late(self, lateness_ns: int, /) -> None:
        """Count a message that was delivered so many ns after its deadline (kind "bus_lateness")."""

    def subscriptions(self, made: int, ended: int, /) -> None:
        """Count subscriptions that were made, and that have ended; also from a finalizer."""
