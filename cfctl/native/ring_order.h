/* Every memory order of the ring, by the place it stands at. Partners are named at both ends.
 *
 * A model checker that has its own atomics defines CF_MEMORY_RELAXED, ... (relacy: rl::mo_relaxed)
 * before it includes this header; the ring's C code takes the compiler's.
 */
#ifndef CF_RING_ORDER_H
#define CF_RING_ORDER_H

#ifndef CF_MEMORY_RELAXED
#define CF_MEMORY_RELAXED __ATOMIC_RELAXED
#define CF_MEMORY_ACQUIRE __ATOMIC_ACQUIRE
#define CF_MEMORY_RELEASE __ATOMIC_RELEASE
#define CF_MEMORY_SEQ_CST __ATOMIC_SEQ_CST
#endif

/* A message: the body's words are relaxed, the slot's seq publishes them. */
#define CF_RING_BODY CF_MEMORY_RELAXED
#define CF_RING_SEQ_PUBLISH CF_MEMORY_RELEASE /* partner: CF_RING_SEQ_READ */
#define CF_RING_SEQ_READ CF_MEMORY_ACQUIRE

/* A message is taken: the reader has copied what lies before its position. */
#define CF_RING_POSITION_PUBLISH CF_MEMORY_RELEASE /* partner: CF_RING_POSITION_READ */
#define CF_RING_POSITION_READ CF_MEMORY_ACQUIRE

/* A seqlock per slot, on every ring: no reader hands out a torn payload, whatever its position.
 * Writer: seq 0 (relaxed), fence, body, seq. Reader: seq, body, fence, seq again (relaxed). The two
 * fences are partners. The arena's floor is a second such lock for payloads outside of the slots:
 * floor (relaxed), fence, arena | arena, fence, floor. */
#define CF_RING_SEQ_INVALIDATE CF_MEMORY_RELAXED
#define CF_RING_OVERWRITE_FENCE CF_MEMORY_RELEASE
#define CF_RING_RECHECK_FENCE CF_MEMORY_ACQUIRE
#define CF_RING_SEQ_RECHECK CF_MEMORY_RELAXED

/* A reader joins while the writer looks for room: a store and a load on either side, each with a
 * full fence between. Reader: gate, fence, tail, which is where it starts. Writer: tail, fence,
 * gates. One of the two sees the other: a look that does not see the reader came before it read the
 * tail, and a look lets the writer overwrite only what lies below the tail of then, so below where
 * the reader starts. It follows that the reader may not start any lower, whatever the ring seems to
 * hold. */
#define CF_RING_TAIL_PUBLISH CF_MEMORY_RELEASE /* partner: CF_RING_TAIL_READ */
#define CF_RING_TAIL_READ CF_MEMORY_ACQUIRE
#define CF_RING_GATE_PUBLISH CF_MEMORY_RELEASE /* partner: CF_RING_GATE_READ */
#define CF_RING_GATE_READ CF_MEMORY_ACQUIRE
#define CF_RING_JOIN_FENCE CF_MEMORY_SEQ_CST

/* A group's members take from one claim. Member: says in its seat what it is about to take, then
 * moves the claim. Who works out how far the group is reads the claim, then the seats: it sees what
 * was said of every message below the claim.
 * A member may die between the two, and then its seat names a message that another one takes. So
 * the claim names who moved it last, and who moves it on first writes that into the line of the one
 * before, which therefore stands for everybody who reads a later claim. */
#define CF_RING_CLAIM_TAKE CF_MEMORY_SEQ_CST /* partner: CF_RING_CLAIM_READ */
#define CF_RING_CLAIM_READ CF_MEMORY_ACQUIRE

/* A reader goes to sleep while a message is published, the same pattern. Reader: waiters, fence,
 * seq. Writer: seq, fence, waiters. */
#define CF_RING_WAITERS CF_MEMORY_RELAXED
#define CF_RING_WAKE_FENCE CF_MEMORY_SEQ_CST

#ifndef CF_RING_MODEL
#if defined(__SANITIZE_THREAD__)
/* The sanitizer knows no fences. The words around them are atomic, which it does know. */
static inline void cf_ring_fence(int order) {
    static unsigned word;
    __atomic_fetch_add(&word, 0, order == __ATOMIC_SEQ_CST ? __ATOMIC_SEQ_CST : __ATOMIC_ACQ_REL);
}
#else
#define cf_ring_fence(order) __atomic_thread_fence(order)
#endif
#endif

#endif
