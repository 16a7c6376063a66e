/* The memory orders the core uses, by what they mean here; the model checkers share this header.
 *
 * A 64-bit aligned load or store is one instruction on every CPU cfctl supports, so a relaxed
 * counter costs no more than a plain one and is free of data races.
 */
#ifndef CF_ATOMIC_H
#define CF_ATOMIC_H

#include <stdint.h>

/* A counter that one thread writes and others read at any time: no order with anything else. */
#define cf_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define cf_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define cf_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)

/* Replaces *(expected) by v; when it was another value, stores that in *(expected) and is false.
 * May fail for no reason: for loops. Relaxed: of one word alone all threads see one order anyway.
 */
#define cf_replace_relaxed(p, expected, v) \
    __atomic_compare_exchange_n((p), (expected), (v), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)

/* Publication: all that stands before the release is seen by who acquires the value. */
#define cf_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define cf_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define cf_fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)
#define cf_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)

/* A record word by word, whatever its fields are. */
typedef uint64_t __attribute__((may_alias)) cf_word;

/* Single-writer increment: a load and a store, no locked instruction. Only the owner of the
 * counter may call it; its readers use cf_load_relaxed. */
#define cf_bump(p, v) cf_store_relaxed((p), cf_load_relaxed(p) + (v))

/* One turn of a spin loop: reading on at once would take the line from its writer again. */
static inline void cf_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#define cf_likely(x) __builtin_expect(!!(x), 1)
#define cf_unlikely(x) __builtin_expect(!!(x), 0)

#endif
