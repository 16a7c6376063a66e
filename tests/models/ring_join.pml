/* Readers that come at any moment, to a ring that must not lose, for Spin: sequentially consistent,
 * each access of shared memory a step; relacy_ring.cpp has the memory orders. The writer looks how far
 * its readers are at any moment (stats and health do), and takes the dead from the gate; a seat may be
 * taken again while it does. Checked: what a reader gets is whole and in order, and from where it
 * joined nothing is missing; nobody waits for ever (an invalid end state).
 *
 * MORTAL: readers die at any step, and the first one's seat goes to another. HISTORY: the second one
 * begins with messages from before it joined, which give way. ARENA: payloads stand outside of the
 * slots, where there is room for fewer. BUG_...: plants a fault that must be found.
 */
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef MESSAGES
#define MESSAGES 5
#endif
#ifdef ARENA
#define ROOM ARENA
#define PLACE(index) ((index) % ARENA)
#else
#define ROOM CAPACITY
#define PLACE(index) ((index) % CAPACITY)
#endif
#define SEATS 2

byte seq[CAPACITY], first[ROOM], second[ROOM]; /* a slot's seq, and a payload of two words */
byte tail, arena_floor;
byte gate[SEATS], position[SEATS]; /* who reads at the seat, 0 = nobody */
bool alive[4];                     /* by who */

#define LIMIT (released + ROOM)
#define HELD_UP(seat) (gate[seat] != 0 && position[seat] + ROOM <= index)
#define IS_DEAD(seat) (gate[seat] != 0 && !alive[gate[seat]])

/* cf_ring_look: the tail, then all gates and positions. */
inline look() {
    lowest = index;
    for (seat : 0 .. SEATS - 1) {
        if
        :: gate[seat] != 0 ->
            at = position[seat];
            if :: at < lowest -> lowest = at :: else fi
        :: else
        fi
    }
    /* Further back than any slot is who joins at this moment and has not said where yet. */
    if :: lowest + CAPACITY >= index -> released = lowest :: else fi
}

/* Takes a dead reader from the gate: only that one, as the seat may be another's by now. */
inline bury() {
    for (seat : 0 .. SEATS - 1) {
        who = gate[seat];
        if
        :: who != 0 && !alive[who] ->
#ifdef BUG_BURY_ANY
            gate[seat] = 0
#else
            atomic { if :: gate[seat] == who -> gate[seat] = 0 :: else fi }
#endif
        :: else
        fi
    }
    who = 0
}

proctype writer() {
    byte index = 0, released = 0, lowest, seat, at, who;
    do
    :: index == MESSAGES -> break
    :: index < MESSAGES ->
        if :: look() :: skip fi;
#ifndef BUG_NO_LOOK
        do
        :: index < LIMIT -> break
        :: else ->
            (!HELD_UP(0) && !HELD_UP(1) || IS_DEAD(0) || IS_DEAD(1));
            if :: IS_DEAD(0) || IS_DEAD(1) -> bury() :: else fi;
            look()
        od;
#endif
        atomic { lowest = 0; seat = 0; at = 0 }
#ifdef ARENA
#ifndef BUG_NO_FLOOR
        arena_floor = (index + 1 > ARENA -> index + 1 - ARENA : 0);
#endif
#endif
#ifndef BUG_NO_INVALIDATION
        seq[index % CAPACITY] = 0;
#endif
        first[PLACE(index)] = index + 1;
        second[PLACE(index)] = index + 1;
        seq[index % CAPACITY] = index + 1;
        tail = index + 1;
        index++
    od
}

#ifdef MORTAL
#define MAY_DIE if :: true -> goto corpse :: true fi
#else
#define MAY_DIE skip
#endif

/* cf_ring_join. */
inline join() {
    gate[seat] = 0;
    next = tail;
#ifdef BUG_OLD_JOIN
    /* "A writer that has not filled the ring once will look before it uses a slot again." */
    next = (next <= ROOM -> 0 : next);
#endif
    position[seat] = next;
    MAY_DIE;
    gate[seat] = me;
    MAY_DIE;
#ifdef BUG_OLD_JOIN
    if
    :: next != 0 || tail >= ROOM -> next = tail
    :: else
    fi;
#else
#ifndef BUG_TAIL_BEFORE_GATE
    next = tail;
#endif
#endif
    joined = next;
    position[seat] = next;
#ifdef HISTORY
    if :: me == 2 -> next = (next > CAPACITY -> next - CAPACITY : 0) :: else fi
#endif
}

/* What is not there any more must be from before it joined. */
inline pass_by() {
    assert(next < joined);
    one = tail;
    one = (one > CAPACITY - 1 -> one - (CAPACITY - 1) : 0);
    if
    :: one > next -> next = (one < joined -> one : joined)
    :: else -> next++
    fi
}

/* Of a slot without a seq the tail tells whether it is written for the first time: that of before. */
inline look_at_slot() {
#ifdef BUG_TAIL_AFTER_SEQ
    found = seq[next % CAPACITY];
    was_tail = tail;
#else
    was_tail = tail;
    found = seq[next % CAPACITY];
#endif
}

proctype reader(byte seat, me) {
    byte next, joined, one, two, found, was_tail;
    join();
    do
    :: next == MESSAGES -> break
    :: next < MESSAGES ->
        look_at_slot();
        if
        :: found == next + 1 ->
            one = first[PLACE(next)];
            two = second[PLACE(next)];
            MAY_DIE;
            if
#ifdef BUG_NO_RECHECK
            :: true ->
#else
            :: seq[next % CAPACITY] == next + 1 && arena_floor <= next ->
#endif
                assert(one == next + 1 && two == next + 1);
                next++;
                if
                :: next > joined -> position[seat] = next
                :: next > joined -> skip
                :: else
                fi
#ifndef BUG_NO_RECHECK
            :: else -> pass_by()
#endif
            fi
        :: found > next + 1 -> pass_by()
        :: found == 0 && was_tail > next + CAPACITY - 1 -> pass_by()
        :: else ->
            if :: next > joined -> position[seat] = next :: else fi;
            MAY_DIE;
            (seq[next % CAPACITY] != found || tail > next + CAPACITY - 1)
        fi;
        atomic { one = 0; two = 0; found = 0; was_tail = 0 }
    od;
    gate[seat] = 0;
    goto done;
corpse:
    alive[me] = false;
    if
    :: me == 1 -> run reader(seat, 3)
    :: else
    fi;
done:
    skip
}

init {
    atomic {
        alive[1] = true;
        alive[2] = true;
        alive[3] = true;
        run writer();
        run reader(0, 1);
        run reader(1, 2)
    }
}
