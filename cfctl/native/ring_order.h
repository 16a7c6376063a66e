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

/* Overwrite mode, a seqlock per slot. Writer: seq 0 (relaxed), fence, body, seq. Reader: seq, body,
 * fence, seq again (relaxed). The two fences are partners. The arena's floor is a second such
 * lock for payloads outside of the slots: floor (relaxed), fence, arena | arena, fence, floor. */
#define CF_RING_SEQ_INVALIDATE CF_MEMORY_RELAXED
#define CF_RING_OVERWRITE_FENCE CF_MEMORY_RELEASE
#define CF_RING_RECHECK_FENCE CF_MEMORY_ACQUIRE
#define CF_RING_SEQ_RECHECK CF_MEMORY_RELAXED

/* A reader joins while the writer looks for room: a store and a load on either side, each with a
 * full fence between. Reader: state, fence, tail. Writer: tail, fence, states. One of the two sees
 * the other, so the writer gates on the reader or the reader starts at the tail the writer had. */
#define CF_RING_TAIL_PUBLISH CF_MEMORY_RELEASE /* partner: CF_RING_TAIL_READ */
#define CF_RING_TAIL_READ CF_MEMORY_ACQUIRE
#define CF_RING_STATE_PUBLISH CF_MEMORY_RELEASE /* partner: CF_RING_STATE_READ */
#define CF_RING_STATE_READ CF_MEMORY_ACQUIRE
#define CF_RING_JOIN_FENCE CF_MEMORY_SEQ_CST

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
