/* A group's members share a ring that must not lose (native/ring_group.c, subscription_group.c), for
 * Spin: sequentially consistent, each access of shared memory a step; relacy_ring.cpp has the memory
 * orders. Members die at any step. Checked: no message is taken by two, unless the one that had it
 * died within it, and then by one other; none is overwritten that nobody has finished; as long as a
 * member lives all are finished; nobody waits for ever (an invalid end state).
 *
 * BATCH: a member takes a second message on top of the first. COUNTED: what the dead had not finished
 * is counted and not given out again. BUG_...: plants a fault that must be found.
 */
#ifndef CAPACITY
#define CAPACITY 1
#endif
#ifndef MESSAGES
#define MESSAGES 2
#endif
#ifndef MEMBERS
#define MEMBERS 3
#endif
#ifndef IMMORTAL
#define IMMORTAL 1 /* members that do not die */
#endif
#define NOBODY MEMBERS
#define MAY_DIE if :: me >= IMMORTAL -> goto corpse :: true fi

byte tail, position;
byte claim, taker = NOBODY; /* one word of the ring */
byte taken_below[MEMBERS]; /* of a member's line: one above the last message it is known to have taken */
bool seated[MEMBERS], named[MEMBERS]; /* a seat is taken; it names messages from .. to */
byte from[MEMBERS], to[MEMBERS], owner[MEMBERS]; /* owner: the participant */
bool alive[MEMBERS + 1];
bool locked; /* the topic's */

/* What nobody in the ring can see: who has a message, whether it is finished, or was counted. */
byte has[MESSAGES];
bool finished[MESSAGES], counted[MESSAGES];

#define IS_DEAD(seat) (seated[seat] && !alive[owner[seat]])
#define LIVES (alive[0] || alive[1] || alive[MEMBERS - 1])

proctype writer() {
    byte index = 0;
    do
    :: index == MESSAGES -> break
    :: index < MESSAGES ->
        (index - position < CAPACITY || !LIVES);
        assert(index < CAPACITY || finished[index - CAPACITY] || counted[index - CAPACITY] || !LIVES);
        tail = index + 1;
        index++
    od
}

/* cf_ring_store_group_position: the claim, then the seats. */
inline store_position() {
#ifdef BUG_CLAIM_AFTER_SEATS
    low = 255;
#else
    low = claim;
#endif
    for (i : 0 .. MEMBERS - 1) {
        if
        :: seated[i] && named[i] -> if :: from[i] < low -> low = from[i] :: else fi
        :: else
        fi
    }
#ifdef BUG_CLAIM_AFTER_SEATS
    low = (claim < low -> claim : low);
#endif
    atomic { if :: position < low -> position = low :: else fi; low = 0; i = 0 }
}

/* Who took the message before the claim is written into its line before the claim moves on. */
inline confirm(who, below) {
#ifndef BUG_NOT_CONFIRMED
    atomic { if :: who != NOBODY && taken_below[who] < below -> taken_below[who] = below :: else fi }
#else
    skip
#endif
}

/* Moves the claim from `index` on; `won` says whether nobody was faster. */
inline move_claim(index) {
    atomic { seen = claim; by = taker };
    won = false;
    if
    :: seen == index ->
        confirm(by, seen);
        atomic {
            if
            :: claim == seen && taker == by ->
                claim = index + 1;
                taker = me;
                won = true;
                assert(has[index] == NOBODY);
                has[index] = me
            :: else
            fi
        }
    :: else
    fi;
    atomic { seen = 0; by = 0 }
}

/* What is named in a seat is finished when it is named no longer. */
inline finish_named(seat) {
    atomic {
        if
        :: named[seat] ->
            for (i : 0 .. MESSAGES - 1) {
                if :: from[seat] <= i && i < to[seat] && has[i] == me -> finished[i] = true :: else fi
            }
            i = 0
        :: else
        fi;
        named[seat] = false
    }
}

/* A dead member's seat: `end` is one above the last message that it really took. */
inline inherit(dead) {
    atomic { seen = claim; by = taker };
    if :: by == dead -> confirm(dead, seen) :: else fi;
    end = taken_below[dead];
#ifdef BUG_TRUST_THE_SEAT
    end = to[dead];
#endif
    atomic {
        end = (end < to[dead] -> end : to[dead]);
        end = (named[dead] && end > from[dead] -> end : from[dead]);
        seen = 0;
        by = 0
    };
    MAY_DIE;
    if
    :: end == from[dead] -> named[dead] = false; seated[dead] = false
#ifdef COUNTED
    :: end > from[dead] ->
        atomic {
            for (i : from[dead] .. end - 1) {
                assert(!finished[i] && !alive[has[i]]);
                counted[i] = true
            }
            i = 0;
            named[dead] = false
        };
        seated[dead] = false
#else
    :: end > from[dead] -> take_over(dead)
#endif
    fi;
    end = 0
}

inline take_over(dead) {
#ifdef BUG_COPY
    /* Into this one's own seat: a scan may look there before and at the other one after. */
    from[me] = from[dead];
    to[me] = end;
    named[me] = true;
    MAY_DIE;
    named[dead] = false;
    seated[dead] = false;
    at = from[me];
    below = end;
    seat = me
#else
    to[dead] = end;
    MAY_DIE;
    owner[dead] = me;
    at = from[dead];
    below = end;
    seat = dead
#endif
}

/* Gives out again what was inherited. */
inline redo() {
    do
    :: at < below ->
        from[seat] = at;
        atomic {
            assert(has[at] != NOBODY && !alive[has[at]] && !finished[at]);
            has[at] = me
        };
        MAY_DIE;
        atomic { finished[at] = true; from[seat] = at + 1; at++ }
    :: else -> break
    od;
    named[seat] = false;
    if :: seat != me -> owner[seat] = NOBODY :: else fi;
    atomic { at = 0; below = 0; seat = 0 }
}

#define A_DEAD (me != 0 && IS_DEAD(0) || me != 1 && IS_DEAD(1) || me != MEMBERS - 1 && IS_DEAD(MEMBERS - 1))

proctype member(byte me) {
    byte i, low, seen, by, end, at, below, seat, index;
    bool won, mine;
    do
    :: tail > claim ->
        index = claim;
#ifdef BUG_CLAIM_FIRST
        if :: index < tail -> move_claim(index) :: else -> won = false fi;
        MAY_DIE;
        if
        :: won -> from[me] = index; to[me] = index + 1; named[me] = true
        :: else
        fi;
#else
        if
        :: index < tail ->
            from[me] = index;
            to[me] = index + 1;
            named[me] = true;
            MAY_DIE;
            move_claim(index);
            if :: !won -> named[me] = false :: else fi
        :: else -> won = false
        fi;
#endif
        MAY_DIE;
#ifdef BATCH
        if
        :: won && index + 1 < tail && claim == index + 1 ->
            to[me] = index + 2;
            MAY_DIE;
            move_claim(index + 1);
            if :: !won -> to[me] = index + 1 :: else fi;
            won = true
        :: else
        fi;
#endif
        if :: won -> store_position(); MAY_DIE; finish_named(me) :: else fi;
        atomic { won = false; index = 0 };
        MAY_DIE
    :: position < claim && !A_DEAD ->
        /* Others work on something: the position is stored when they are done. */
        store_position();
        if
        :: position < claim -> (position == claim || A_DEAD || !named[0] && !named[1] && !named[MEMBERS - 1] || tail > claim)
        :: else
        fi
    :: A_DEAD && !locked ->
        atomic { if :: !locked -> locked = true; mine = true :: else fi };
        if
        :: mine ->
            if
            :: me != 0 && IS_DEAD(0) -> inherit(0)
            :: me != 1 && IS_DEAD(1) -> inherit(1)
            :: me != MEMBERS - 1 && IS_DEAD(MEMBERS - 1) -> inherit(MEMBERS - 1)
            :: else
            fi;
            atomic { locked = false; mine = false };
            if :: at < below -> redo() :: else fi
        :: else
        fi
    :: claim == MESSAGES && position == MESSAGES && !A_DEAD -> break
    od;
    atomic {
        for (i : 0 .. MESSAGES - 1) { assert(finished[i] || counted[i]) }
        goto done
    };
corpse:
    atomic {
        alive[me] = false;
        if :: mine -> locked = false :: else fi
    };
done:
    skip
}

init {
    atomic {
        byte each;
        for (each : 0 .. MEMBERS - 1) {
            seated[each] = true;
            owner[each] = each;
            alive[each] = true
        }
        for (each : 0 .. MESSAGES - 1) { has[each] = NOBODY }
        run writer();
        for (each : 0 .. MEMBERS - 1) { run member(each) }
    }
}
