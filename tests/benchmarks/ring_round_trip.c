/* The ring between two processes, by its C interface: half round trips in ns, p50 p99 p99.9, and
 * messages per second. No clock, no counters, no interpreter: what the bus's other figures stand on.
 * Usage: ring_round_trip DIRECTORY CPU_A CPU_B PAYLOAD_BYTES SLOT_BYTES */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "publisher.h"
#include "subscription.h"
#include "tick.h"

enum { TRIPS = 400000, FIRST = 1000, FLOOD = 8000000, CAPACITY = 4096, MOST_PAYLOAD = 96 };

/* One side's. */
static struct cf_participant participant;
static struct cf_subscription inbox;
static struct cf_publisher outbox;
static size_t payload_bytes;
static uint32_t slot_bytes;

static void fail(const char *what, int error) {
    fprintf(stderr, "%s: %s\n", what, strerror(-error));
    exit(3);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        fail("sched_setaffinity", -EINVAL);
}

/* Takes part in what two topics carry; returns once the other side does. */
static void join(const char *directory, const char *in, const char *out) {
    struct cf_subscription_request request = {.id = (uint64_t)getpid(), .wait = CF_WAIT_SPIN};
    struct cf_ring_config config = {.topic = out,
                                    .topic_bytes = (uint32_t)strlen(out),
                                    .capacity = CAPACITY,
                                    .slot_bytes = slot_bytes};
    int error = cf_participant_open(&participant, directory);
    if (error != 0)
        fail("cf_participant_open", error);
    cf_subscription_init(&inbox, &participant, &request);
    error = cf_subscription_add_topic(&inbox, in, (uint32_t)strlen(in));
    if (error != 0)
        fail("cf_subscription_add_topic", error);
    error = cf_publisher_open(&outbox, &participant, config);
    if (error != 0)
        fail("cf_publisher_open", error);
    while (cf_ring_count_readers(&outbox.writer) == 0 || inbox.readers.count == 0) {
        cf_subscription_refresh(&inbox);
        usleep(1000);
    }
}

static void leave(void) {
    cf_subscription_close(&inbox);
    cf_publisher_close(&outbox);
    cf_participant_close(&participant);
}

static void take(char *into) {
    struct cf_ring_message message;
    struct cf_ring_reader *reader;
    do {
        while ((reader = cf_subscription_poll(&inbox, &message)) == NULL)
            cf_relax();
        cf_ring_copy(&message, into);
    } while (!cf_ring_take(reader, &message));
}

static void put(const char *payload) {
    while (cf_ring_publish(&outbox.writer, payload, payload_bytes, 0, 0, 0) != 0)
        cf_relax();
}

static void echo(const char *directory, int cpu) {
    char payload[MOST_PAYLOAD] = {0};
    pin(cpu);
    join(directory, "there", "back");
    for (int i = 0; i < TRIPS; i++) {
        take(payload);
        put(payload);
    }
    for (int i = 0; i < FLOOD; i++)
        take(payload);
    put(payload);
    leave();
    _exit(0);
}

static int ascending(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv) {
    if (argc != 6)
        return 2;
    static uint64_t trips[TRIPS];
    char payload[MOST_PAYLOAD] = {0};
    payload_bytes = (size_t)atoi(argv[4]);
    slot_bytes = (uint32_t)atoi(argv[5]);
    if (payload_bytes > MOST_PAYLOAD)
        return 2;
    cf_tick_select();
    pid_t child = fork();
    if (child == 0)
        echo(argv[1], atoi(argv[3]));
    pin(atoi(argv[2]));
    join(argv[1], "back", "there");
    uint64_t began_ns = cf_os_ns(CLOCK_MONOTONIC_RAW), began = cf_ticks();
    for (int i = 0; i < TRIPS; i++) {
        uint64_t start = cf_ticks();
        put(payload);
        take(payload);
        trips[i] = cf_ticks() - start;
    }
    double ns_per_tick =
        (double)(cf_os_ns(CLOCK_MONOTONIC_RAW) - began_ns) / (double)(cf_ticks() - began);
    uint64_t flood_ns = cf_os_ns(CLOCK_MONOTONIC_RAW);
    for (int i = 0; i < FLOOD; i++)
        put(payload);
    take(payload);
    flood_ns = cf_os_ns(CLOCK_MONOTONIC_RAW) - flood_ns;
    leave();
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        return 3;
    qsort(trips + FIRST, TRIPS - FIRST, sizeof trips[0], ascending);
    static const double shares[] = {0.5, 0.99, 0.999};
    for (size_t i = 0; i < 3; i++) {
        size_t rank = FIRST + (size_t)(shares[i] * (TRIPS - FIRST));
        printf("%.1f ", (double)trips[rank] * ns_per_tick / 2);
    }
    printf("%.0f\n", FLOOD * 1e9 / (double)flood_ns);
    return 0;
}
