/* The ring with backpressure and sleeping readers (native/ring_writer.c, ring_reader.c, topic.h), for
 * Spin: sequentially consistent, each access of shared memory a step; relacy_ring.cpp has the memory
 * orders. Checked: what is read is whole, in order, each once; nobody waits for ever (an invalid end
 * state), with either side dying at any step (MORTAL). BUG_... plants a fault that must be found.
 */
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef MESSAGES
#define MESSAGES 4
#endif
#ifndef LAZY
#define LAZY 3 /* more than the capacity: only the store at the empty ring lets the writer go on */
#endif
#define READERS 2

byte seq[CAPACITY], first[CAPACITY], second[CAPACITY]; /* a slot: seq and a body of two words */
byte position[READERS];
bool member[READERS], alive[READERS], asleep[READERS];
byte word; /* the futex word: odd = somebody sleeps or is about to */
bool writer_alive;

#ifdef MORTAL
#define MAY_DIE(corpse) if :: true -> goto corpse :: true fi
#else
#define MAY_DIE(corpse) skip
#endif

#define GATES(r) (member[r] && position[r] + CAPACITY <= index)
/* cf_ring_look: who died leaves the gate; the caller comes back until there is room. */
#ifdef BUG_DEAD_STAYS
#define BURY(r) skip
#else
#define BURY(r) if :: member[r] && !alive[r] -> member[r] = false :: else fi
#endif
#define DEAD(r) (member[r] && !alive[r])
#define ROOM (!GATES(0) && !GATES(1))

inline notify() {
    if
    :: word & 1 ->
#ifdef BUG_FLAG
        word = 0;
#else
        word = word + 1; /* the only one that adds: the others only make it odd, which it is */
#endif
        atomic { asleep[0] = false; asleep[1] = false }
    :: else
    fi
}

proctype writer() {
    byte index = 0;
    bool saw_waiter = false;
    do
    :: index < MESSAGES ->
#ifndef BUG_NO_GATE
        do
        :: ROOM -> break
        :: DEAD(0) || DEAD(1) -> BURY(0); BURY(1);
#ifdef BUG_DEAD_STAYS
            (ROOM)
#endif
        od;
#endif
        MAY_DIE(corpse);
#ifdef BUG_WAKE_BEFORE_STORE
        saw_waiter = word & 1;
#endif
#ifdef BUG_PUBLISH_BEFORE_BODY
        seq[index % CAPACITY] = index + 1;
#endif
        first[index % CAPACITY] = index + 1;
        MAY_DIE(corpse);
        second[index % CAPACITY] = index + 1;
        MAY_DIE(corpse);
        seq[index % CAPACITY] = index + 1;
        MAY_DIE(corpse);
#ifdef BUG_WAKE_BEFORE_STORE
        if :: saw_waiter -> notify() :: else fi;
#else
        notify();
#endif
        index++
    :: else -> break
    od;
corpse:
    writer_alive = false
}

#define ARRIVED (seq[next % CAPACITY] == next + 1)

proctype reader(byte me) {
    byte next = 0, stored = 0, one, two, mine;
    do
    :: ARRIVED ->
#ifdef BUG_POSITION_BEFORE_COPY
        position[me] = next + 1;
#endif
        one = first[next % CAPACITY];
        MAY_DIE(corpse);
        two = second[next % CAPACITY];
        assert(one == next + 1 && two == next + 1);
        next++;
        if
        :: next - stored >= LAZY -> position[me] = next; stored = next
        :: else
        fi
    :: !ARRIVED ->
#ifndef BUG_POSITION_KEPT
        position[me] = next;
        stored = next;
#endif
        MAY_DIE(corpse);
        if
        :: next == MESSAGES -> break
        :: else
        fi;
        atomic { word = word | 1; mine = word };
#ifndef BUG_NO_RECHECK
        if
        :: ARRIVED -> skip
        :: else ->
#endif
            /* futex(2): sleeps only if the word is still the one it was. */
            atomic { if :: word == mine -> asleep[me] = true :: else fi };
            MAY_DIE(corpse);
#ifdef MORTAL
            /* The time-out is for nothing but the writer's death. */
            (!asleep[me] || !writer_alive);
            asleep[me] = false;
            if
            :: !writer_alive && !ARRIVED -> break
            :: else
            fi
#else
            (!asleep[me])
#endif
#ifndef BUG_NO_RECHECK
        fi
#endif
    od;
#ifndef MORTAL
    assert(next == MESSAGES);
#endif
corpse:
    alive[me] = false
}

init {
    atomic {
        writer_alive = true;
        byte r;
        for (r : 0 .. READERS - 1) { member[r] = true; alive[r] = true }
        run writer();
        run reader(0);
        run reader(1)
    }
}
