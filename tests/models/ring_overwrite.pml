/* The ring in overwrite mode (a seqlock per slot), for Spin: what is taken is whole; a lapped reader
 * counts exactly what it missed: taken + dropped = published since it joined, at any moment, and each
 * message once. */
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef MESSAGES
#define MESSAGES 6
#endif

byte seq[CAPACITY], first[CAPACITY], second[CAPACITY];
byte tail, begun;
#ifndef READERS
#define READERS 1
#endif

proctype writer() {
    byte index = 0;
    do
    :: index < MESSAGES ->
        begun = index + 1;
#ifndef BUG_NO_INVALIDATION
        seq[index % CAPACITY] = 0;
#endif
        first[index % CAPACITY] = index + 1;
        second[index % CAPACITY] = index + 1;
        seq[index % CAPACITY] = index + 1;
        tail = index + 1;
        index++
    :: else -> break
    od
}

inline drop(count) {
    dropped = dropped + count;
    next = next + count;
    assert(next <= begun)
}

inline catch_up() {
    byte end = tail, target;
    target = (end > CAPACITY / 2 -> end - CAPACITY / 2 : 0);
#ifdef BUG_GAP
    next = (target > next -> target : next + 1);
    dropped++
#else
    if
    :: target > next -> drop(target - next)
    :: else -> drop(1)
    fi
#endif
}

proctype reader() {
    byte next, joined, taken = 0, dropped = 0, one, two, found, was_tail;
    next = tail;
    joined = next;
    do
    :: next == MESSAGES -> break
    :: next < MESSAGES ->
        was_tail = tail; /* before the slot: see BUG_TAIL_AFTER_SEQ of ring_join.pml */
        found = seq[next % CAPACITY];
        if
        :: found == next + 1 ->
            one = first[next % CAPACITY];
            two = second[next % CAPACITY];
            if
#ifdef BUG_NO_RECHECK
            :: true ->
#else
            :: seq[next % CAPACITY] == next + 1 ->
#endif
                assert(one == next + 1 && two == next + 1);
                next++;
                taken++
#ifndef BUG_NO_RECHECK
            :: else -> assert(begun > next + CAPACITY); drop(1)
#endif
            fi
        :: found > next + 1 -> catch_up()
        :: found == 0 && was_tail > next + CAPACITY - 1 -> catch_up()
        :: else -> (seq[next % CAPACITY] != found || tail > next + CAPACITY - 1)
        fi
    od;
    assert(taken + dropped == MESSAGES - joined)
}

init {
    atomic {
        byte each;
        run writer();
        for (each : 1 .. READERS) { run reader() }
    }
}
