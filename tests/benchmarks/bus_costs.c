/* What the bus's C parts take, one thread, no interpreter: prints in ns the HLC's tick (wall clock,
 * compare-and-swap, counters and the tick read), and what stamp, HLC and counters add to a
 * message that is published; the least of many short loops.
 * Usage: bus_costs DIRECTORY */
#include <stdio.h>

#include "bus.h"
#include "publisher.h"
#include "wall.h"

enum { LOOPS = 300, TURNS = 1000, CAPACITY = 4096, WARM_UP_NS = 5000000 };

static struct cf_participant participant;
static struct cf_publisher publisher;
static uint32_t instrument;
static uint64_t sum;

static void tick_clock(void) {
    uint64_t tick = cf_ticks();
    sum += cf_hlc_node_tick(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick));
}

static void publish_bare(void) {
    static const char payload[32];
    if (cf_ring_publish(&publisher.writer, payload, sizeof payload, 1, 2, 0) != 0)
        sum++;
}

static void publish_whole(void) {
    static const char payload[32];
    uint64_t tick = cf_ticks();
    uint64_t hlc = cf_hlc_node_tick(&cf_hlc_process, cf_hlc_node_now(&cf_hlc_process, tick));
    if (cf_ring_publish(&publisher.writer, payload, sizeof payload, tick, hlc, 0) != 0)
        sum++;
    struct cf_bus_published *shard = cf_process_payload(&cf_thread, instrument);
    if (shard)
        cf_bus_published_add(shard, 1, sizeof payload, tick);
}

static double least_ns(void (*function)(void)) {
    double least = 1e9;
    for (int loop = 0; loop < LOOPS; loop++) {
        uint64_t start = cf_os_ns(CLOCK_MONOTONIC);
        for (int turn = 0; turn < TURNS; turn++)
            function();
        double found = (double)(cf_os_ns(CLOCK_MONOTONIC) - start) / TURNS;
        least = found < least ? found : least;
    }
    return least;
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    struct cf_ring_config config = {
        .topic = "costs", .topic_bytes = 5, .capacity = CAPACITY, .slot_bytes = 64};
    cf_tick_select();
    if (cf_process_configure(argv[1], "", 1 << 20) != 0 ||
        cf_participant_open(&participant, argv[1]) != 0 ||
        cf_publisher_open(&publisher, &participant, config) != 0 ||
        cf_hlc_node_initialise(&cf_hlc_process, 1, CF_HLC_MAX_OFFSET_NS) != 0)
        return 3;
    int64_t id = cf_process_instrument(&cf_kind_bus_publisher, "costs", 5, NULL, 0);
    if (id < 0)
        return 3;
    instrument = (uint32_t)id;
    /* Until the wall clock has a rate of its own. */
    for (uint64_t end = cf_os_ns(CLOCK_MONOTONIC) + WARM_UP_NS; cf_os_ns(CLOCK_MONOTONIC) < end;)
        tick_clock();
    double whole = least_ns(publish_whole), bare = least_ns(publish_bare);
    printf("%.2f %.2f\n", least_ns(tick_clock), whole - bare);
    cf_publisher_close(&publisher);
    cf_participant_close(&participant);
    return sum == 0;
}
