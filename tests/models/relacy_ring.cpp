// The ring's protocols under the C11 memory model, for relacy: every access that the model allows to
// return an older value may. The orders are those of native/ring_order.h; -DSEED_... weakens one of them
// or leaves a step out, and then a fault must be found.
//
// Usage: relacy_ring NAME: delivery, overwrite, sleep, join, arena or claim. Exits 1 when a fault was found.
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
#elif defined(SEED_CLAIM_TAKE)
#undef CF_RING_CLAIM_TAKE
#define CF_RING_CLAIM_TAKE CF_MEMORY_RELAXED
#elif defined(SEED_CLAIM_READ)
#undef CF_RING_CLAIM_READ
#define CF_RING_CLAIM_READ CF_MEMORY_RELAXED
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

// Join at any moment, of a writer that looks before its ring is full, as stats do: a ring that must not
// lose keeps all from where the reader joined, and it gets it whole.
struct Join : rl::test_suite<Join, 2> {
    Ring<Racing> ring;
    static const int MESSAGES = 3;

    void before() {
        ring.clear();
    }

    int look(int index, int released) {
        int lowest = index;
        cf_ring_fence(CF_RING_JOIN_FENCE);
        if (ring.members($).load(CF_RING_GATE_READ)) {
            int position = ring.position($).load(CF_RING_POSITION_READ);
            lowest = position < lowest ? position : lowest;
        }
        return lowest + CAPACITY >= index ? lowest : released;
    }

    void write() {
        rl::linear_backoff backoff;
        for (int index = 0, released = 0; index < MESSAGES; index++) {
            if (index == 1)
                released = look(index, released);
            while (index >= released + CAPACITY) {
                backoff.yield($);
                released = look(index, released);
            }
            ring.publish(index, true);
        }
    }

    int join() {
        int start = ring.tail($).load(CF_RING_TAIL_READ);
#if defined(SEED_OLD_JOIN)
        // "A writer that has not filled the ring once will look before it uses a slot again."
        start = start <= CAPACITY ? 0 : start;
#endif
        ring.position($).store(start, CF_RING_POSITION_PUBLISH);
        ring.members($).store(1, CF_RING_GATE_PUBLISH);
        cf_ring_fence(CF_RING_JOIN_FENCE);
        int tail = ring.tail($).load(CF_RING_TAIL_READ);
#if defined(SEED_OLD_JOIN)
        if (start != 0 || tail >= CAPACITY)
            start = tail;
#else
        start = tail;
#endif
        ring.position($).store(start, CF_RING_POSITION_PUBLISH);
        return start;
    }

    void read() {
        rl::linear_backoff backoff;
        for (int next = join(); next < MESSAGES; next++) {
            Slot<Racing> &slot = ring.slots[next % CAPACITY];
            int seq;
            while ((seq = slot.seq($).load(CF_RING_SEQ_READ)) != next + 1) {
                RL_ASSERT(seq <= next);
                backoff.yield($);
            }
            int first = get(slot.first), second = get(slot.second);
            cf_ring_fence(CF_RING_RECHECK_FENCE);
            RL_ASSERT(slot.seq($).load(CF_RING_SEQ_RECHECK) == next + 1);
            RL_ASSERT(first == next + 1 && second == next + 1);
            ring.position($).store(next + 1, CF_RING_POSITION_PUBLISH);
        }
    }

    void thread(unsigned which) {
        if (which == 0)
            write();
        else
            read();
    }
};

// A payload outside of the slots: what passes the look at the floor is whole.
struct Arena : rl::test_suite<Arena, 2> {
    static const int MESSAGES = 3, ROOM = 1;
    rl::atomic<int> seq[MESSAGES], floor, words[ROOM];

    void before() {
        for (int i = 0; i < MESSAGES; i++)
            seq[i]($) = 0;
        floor($) = 0;
        words[0]($) = 0;
    }

    void thread(unsigned which) {
        for (int index = 0; index < MESSAGES; index++) {
            if (which == 0) {
#if !defined(SEED_NO_FLOOR)
                floor($).store(index + 1 - ROOM, CF_MEMORY_RELAXED);
#endif
                cf_ring_fence(CF_RING_OVERWRITE_FENCE);
                words[index % ROOM]($).store(index + 1, CF_RING_BODY);
                seq[index]($).store(index + 1, CF_RING_SEQ_PUBLISH);
            } else if (seq[index]($).load(CF_RING_SEQ_READ) == index + 1) {
                int word = words[index % ROOM]($).load(CF_RING_BODY);
                cf_ring_fence(CF_RING_RECHECK_FENCE);
                if (floor($).load(CF_MEMORY_RELAXED) <= index)
                    RL_ASSERT(word == index + 1);
            }
        }
    }
};

// A group: two members take two messages; the writer uses a slot again only when the group's position
// says that nobody works on it. Payloads are plain: relacy reports who writes while another reads.
struct Claim : rl::test_suite<Claim, 3> {
    static const int MESSAGES = 2;
    rl::atomic<int> claim; // index * 4 + seat of who took the one before; 3 = nobody
    rl::atomic<int> taken[2], named[2], from[2], position;
    Plain payloads[MESSAGES];

    void before() {
        claim($) = 3;
        position($) = 0;
        for (int i = 0; i < 2; i++) {
            taken[i]($) = 0;
            named[i]($) = 0;
            from[i]($) = 0;
            payloads[i]($) = i + 1;
        }
    }

    void store_position() {
        int lowest = claim($).load(CF_RING_CLAIM_READ) / 4;
        for (int i = 0; i < 2; i++) {
            if (!named[i]($).load(rl::mo_acquire))
                continue;
            int each = from[i]($).load(rl::mo_relaxed);
            lowest = each < lowest ? each : lowest;
        }
        int at = position($).load(rl::mo_relaxed);
        while (at < lowest &&
               !position($).compare_exchange_weak(at, lowest, CF_RING_POSITION_PUBLISH, rl::mo_relaxed))
            ;
    }

    // Writes down who took the message before the claim.
    void confirm(int seen) {
        int who = seen % 4;
        if (who == 3)
            return;
        int known = taken[who]($).load(rl::mo_relaxed);
        while (known < seen / 4 &&
               !taken[who]($).compare_exchange_weak(known, seen / 4, CF_RING_CLAIM_TAKE, rl::mo_relaxed))
            ;
    }

    void take(int me) {
        int index = claim($).load(CF_RING_CLAIM_READ) / 4;
        if (index == MESSAGES)
            return;
        from[me]($).store(index, rl::mo_release);
        named[me]($).store(1, rl::mo_release);
        int seen = claim($).load(CF_RING_CLAIM_READ);
        if (seen / 4 == index) {
#if !defined(SEED_NOT_CONFIRMED)
            confirm(seen);
#endif
            if (claim($).compare_exchange_strong(seen, (index + 1) * 4 + me, CF_RING_CLAIM_TAKE,
                                                 rl::mo_relaxed))
                RL_ASSERT(get(payloads[index]) == index + 1);
        }
        named[me]($).store(0, rl::mo_release);
        store_position();
    }

    void thread(unsigned which) {
        if (which < 2) {
            take((int)which);
            return;
        }
        // Who buries one of them: of the first message somebody stands who took it.
        int seen = claim($).load(CF_RING_CLAIM_READ);
        if (seen / 4 == MESSAGES)
            RL_ASSERT(taken[0]($).load(rl::mo_relaxed) + taken[1]($).load(rl::mo_relaxed) > 0);
        // Who writes.
        int free = position($).load(CF_RING_POSITION_READ);
        for (int i = 0; i < free; i++)
            put(payloads[i], 9);
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
    else if (!std::strcmp(name, "arena"))
        passed = rl::simulate<Arena>(params);
    else if (!std::strcmp(name, "claim"))
        passed = rl::simulate<Claim>(params);
    else
        return 2;
    return passed ? 0 : 1;
}
