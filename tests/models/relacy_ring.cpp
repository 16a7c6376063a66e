// The ring's protocols under the C11 memory model, for relacy: every access that the model allows to
// return an older value may. The orders are those of native/ring_order.h; -DSEED_... weakens one of them
// or leaves a step out, and then a fault must be found.
//
// Usage: relacy_ring NAME: delivery, overwrite, sleep or join. Exits 1 when a fault was found.
#include <cstring>

#include <relacy/relacy.hpp>

#define CF_RING_MODEL
#define CF_MEMORY_RELAXED rl::mo_relaxed
#define CF_MEMORY_ACQUIRE rl::mo_acquire
#define CF_MEMORY_RELEASE rl::mo_release
#define CF_MEMORY_SEQ_CST rl::mo_seq_cst
#include "ring_order.h"

#if defined(SEED_SEQ_PUBLISH)
#undef CF_RING_SEQ_PUBLISH
#define CF_RING_SEQ_PUBLISH CF_MEMORY_RELAXED
#elif defined(SEED_SEQ_READ)
#undef CF_RING_SEQ_READ
#define CF_RING_SEQ_READ CF_MEMORY_RELAXED
#elif defined(SEED_POSITION_PUBLISH)
#undef CF_RING_POSITION_PUBLISH
#define CF_RING_POSITION_PUBLISH CF_MEMORY_RELAXED
#elif defined(SEED_POSITION_READ)
#undef CF_RING_POSITION_READ
#define CF_RING_POSITION_READ CF_MEMORY_RELAXED
#elif defined(SEED_OVERWRITE_FENCE)
#undef CF_RING_OVERWRITE_FENCE
#define CF_RING_OVERWRITE_FENCE CF_MEMORY_ACQUIRE
#elif defined(SEED_RECHECK_FENCE)
#undef CF_RING_RECHECK_FENCE
#define CF_RING_RECHECK_FENCE CF_MEMORY_RELEASE
#elif defined(SEED_WAKE_FENCE)
#undef CF_RING_WAKE_FENCE
#define CF_RING_WAKE_FENCE CF_MEMORY_RELEASE
#elif defined(SEED_JOIN_FENCE)
#undef CF_RING_JOIN_FENCE
#define CF_RING_JOIN_FENCE CF_MEMORY_RELEASE
#endif

#define cf_ring_fence(order) rl::atomic_thread_fence(order, $)

static const int CAPACITY = 2;

// Of a body: atomic where a reader may look while it is written, else plain, so that relacy reports
// two unordered accesses themselves.
typedef rl::atomic<int> Racing;
typedef rl::var<int> Plain;

static void put(Racing &word, int value) {
    word($).store(value, CF_RING_BODY);
}
static void put(Plain &word, int value) {
    word($) = value;
}
static int get(Racing &word) {
    return word($).load(CF_RING_BODY);
}
static int get(Plain &word) {
    return word($);
}

template <class Word>
struct Slot {
    rl::atomic<int> seq;
    Word first, second;
};

template <class Word>
struct Ring {
    Slot<Word> slots[CAPACITY];
    rl::atomic<int> tail, position, members, waiters;

    void clear() {
        for (int i = 0; i < CAPACITY; i++) {
            slots[i].seq($) = 0;
            put(slots[i].first, 0);
            put(slots[i].second, 0);
        }
        tail($) = 0;
        position($) = 0;
        members($) = 0;
        waiters($) = 0;
    }

    void publish(int index, bool overwrite) {
        Slot<Word> &slot = slots[index % CAPACITY];
        if (overwrite) {
#if !defined(SEED_NO_INVALIDATION)
            slot.seq($).store(0, CF_RING_SEQ_INVALIDATE);
#endif
            cf_ring_fence(CF_RING_OVERWRITE_FENCE);
        }
        put(slot.first, index + 1);
        put(slot.second, index + 1);
        slot.seq($).store(index + 1, CF_RING_SEQ_PUBLISH);
        tail($).store(index + 1, CF_RING_TAIL_PUBLISH);
    }
};

// Backpressure: each message once, whole, in order; a slot is not written before its reader is done.
struct Delivery : rl::test_suite<Delivery, 2> {
    Ring<Plain> ring;
    static const int MESSAGES = 4;

    void before() {
        ring.clear();
    }

    void thread(unsigned which) {
        rl::linear_backoff backoff;
        if (which == 0) {
            for (int index = 0; index < MESSAGES; index++) {
                while (index - ring.position($).load(CF_RING_POSITION_READ) >= CAPACITY)
                    backoff.yield($);
                ring.publish(index, false);
            }
            return;
        }
        for (int next = 0; next < MESSAGES; next++) {
            Slot<Plain> &slot = ring.slots[next % CAPACITY];
            while (slot.seq($).load(CF_RING_SEQ_READ) != next + 1)
                backoff.yield($);
            RL_ASSERT(get(slot.first) == next + 1);
            RL_ASSERT(get(slot.second) == next + 1);
            ring.position($).store(next + 1, CF_RING_POSITION_PUBLISH);
        }
    }
};

// Overwrite: what passes the second look at seq is whole.
struct Overwrite : rl::test_suite<Overwrite, 2> {
    Ring<Racing> ring;

    void before() {
        ring.clear();
    }

    void thread(unsigned which) {
        if (which == 0) {
            for (int index = 0; index < 2 * CAPACITY; index++)
                ring.publish(index, true);
            return;
        }
        for (int next = 0; next < 2 * CAPACITY; next++) {
            Slot<Racing> &slot = ring.slots[next % CAPACITY];
            if (slot.seq($).load(CF_RING_SEQ_READ) != next + 1)
                continue;
            int first = get(slot.first);
            int second = get(slot.second);
            cf_ring_fence(CF_RING_RECHECK_FENCE);
#if !defined(SEED_NO_RECHECK)
            if (slot.seq($).load(CF_RING_SEQ_RECHECK) != next + 1)
                continue;
#endif
            RL_ASSERT(first == next + 1 && second == next + 1);
        }
    }
};

// Sleep: the reader sees the message, or the writer sees that the reader sleeps.
struct Sleep : rl::test_suite<Sleep, 2> {
    Ring<Racing> ring;
    rl::var<int> reader_saw, writer_saw;

    void before() {
        ring.clear();
        reader_saw($) = 0;
        writer_saw($) = 0;
    }

    void thread(unsigned which) {
        if (which == 0) {
            ring.publish(0, false);
            cf_ring_fence(CF_RING_WAKE_FENCE);
            writer_saw($) = ring.waiters($).load(CF_RING_WAITERS) & 1;
        } else {
            int word = ring.waiters($).load(CF_RING_WAITERS);
            while (!ring.waiters($).compare_exchange_weak(word, word | 1, CF_RING_WAITERS))
                ;
            cf_ring_fence(CF_RING_WAKE_FENCE);
            reader_saw($) = ring.slots[0].seq($).load(CF_RING_SEQ_READ);
        }
    }

    void after() {
        RL_ASSERT(reader_saw($) || writer_saw($));
    }
};

// Join: the writer sees that the reader gates it, or the reader sees the tail that the writer had.
struct Join : rl::test_suite<Join, 2> {
    Ring<Racing> ring;
    rl::var<int> reader_saw, writer_saw;

    void before() {
        ring.clear();
        reader_saw($) = 0;
        writer_saw($) = 0;
    }

    void thread(unsigned which) {
        if (which == 0) {
            ring.publish(0, false);
            cf_ring_fence(CF_RING_JOIN_FENCE);
            writer_saw($) = ring.members($).load(CF_RING_STATE_READ);
        } else {
            // native: a fetch_or with seq_cst; relaxed here, so that the fence alone is judged.
            ring.members($).store(1, CF_MEMORY_RELAXED);
            cf_ring_fence(CF_RING_JOIN_FENCE);
            reader_saw($) = ring.tail($).load(CF_RING_TAIL_READ);
        }
    }

    void after() {
        RL_ASSERT(reader_saw($) || writer_saw($));
    }
};

int main(int count, char **arguments) {
    const char *name = count > 1 ? arguments[1] : "";
    rl::test_params params;
    params.search_type = rl::sched_bound;
    params.context_bound = 3;
    params.execution_depth_limit = 500;
    bool passed;
    if (!std::strcmp(name, "delivery"))
        passed = rl::simulate<Delivery>(params);
    else if (!std::strcmp(name, "overwrite"))
        passed = rl::simulate<Overwrite>(params);
    else if (!std::strcmp(name, "sleep"))
        passed = rl::simulate<Sleep>(params);
    else if (!std::strcmp(name, "join"))
        passed = rl::simulate<Join>(params);
    else
        return 2;
    return passed ? 0 : 1;
}
