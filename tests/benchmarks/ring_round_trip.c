/* The ring alone, between two processes: half round trips in ns, p50 p99 p99.9, and messages per
 * second. No clock, no counters, no interpreter: what the bus's other figures stand on.
 * Usage: ring_round_trip DIRECTORY CPU_A CPU_B PAYLOAD_BYTES SLOT_BYTES */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring.h"
#include "tick.h"

enum { TRIPS = 400000, FIRST = 1000, FLOOD = 8000000, CAPACITY = 4096, MOST_PAYLOAD = 96 };

static int directory_fd;
static size_t payload_bytes;
static uint32_t slot_bytes;

static void fail(const char *what) {
    perror(what);
    exit(3);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        fail("sched_setaffinity");
}

static void make(struct cf_ring_writer *writer, const char *topic) {
    struct cf_ring_config config = {.topic = topic,
                                    .topic_bytes = (uint32_t)strlen(topic),
                                    .capacity = CAPACITY,
                                    .slot_bytes = slot_bytes,
                                    .publisher = 1};
    if (cf_ring_create(writer, directory_fd, &config, 0) != 0)
        fail("cf_ring_create");
}

static void name_of(uint64_t ring_id, char *name, size_t capacity) {
    snprintf(name, capacity, "%016llx-%016llx.ring", 0ULL, (unsigned long long)ring_id);
}

static void join(struct cf_ring_reader *reader, uint64_t ring_id, const char *topic) {
    char name[64];
    name_of(ring_id, name, sizeof name);
    if (cf_ring_attach(reader, directory_fd, name, topic, (uint32_t)strlen(topic), 1, 0) != 0)
        fail("cf_ring_attach");
}

static void take(struct cf_ring_reader *reader, char *into) {
    struct cf_ring_message message;
    do {
        while (!cf_ring_peek(reader, &message))
            cf_relax();
        cf_ring_copy(&message, into);
    } while (!cf_ring_take(reader, &message));
}

static void put(struct cf_ring_writer *writer, const char *payload) {
    while (cf_ring_publish(writer, payload, payload_bytes, 0, 0, 0) != 0)
        cf_relax();
}

static void tell(int fd, uint64_t ring_id) {
    if (write(fd, &ring_id, sizeof ring_id) != sizeof ring_id)
        fail("write");
}

static uint64_t told(int fd) {
    uint64_t ring_id;
    if (read(fd, &ring_id, sizeof ring_id) != sizeof ring_id)
        fail("read");
    return ring_id;
}

static void echo(int cpu, int from, int to) {
    struct cf_ring_writer back;
    struct cf_ring_reader there;
    char payload[MOST_PAYLOAD];
    pin(cpu);
    make(&back, "back");
    join(&there, told(from), "there");
    tell(to, back.header->ring_id);
    for (int i = 0; i < TRIPS; i++) {
        take(&there, payload);
        put(&back, payload);
    }
    for (int i = 0; i < FLOOD; i++)
        take(&there, payload);
    put(&back, payload);
    cf_ring_detach(&there);
    cf_ring_close(&back);
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
    int out[2], in[2];
    payload_bytes = (size_t)atoi(argv[4]);
    slot_bytes = (uint32_t)atoi(argv[5]);
    directory_fd = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (directory_fd < 0 || pipe(out) != 0 || pipe(in) != 0 || payload_bytes > MOST_PAYLOAD)
        fail(argv[1]);
    cf_tick_select();
    pid_t child = fork();
    if (child == 0)
        echo(atoi(argv[3]), out[0], in[1]);
    pin(atoi(argv[2]));
    struct cf_ring_writer there;
    struct cf_ring_reader back;
    char payload[MOST_PAYLOAD] = {0}, name[64];
    make(&there, "there");
    uint64_t there_id = there.header->ring_id;
    tell(out[1], there_id);
    uint64_t back_id = told(in[0]);
    join(&back, back_id, "back");
    uint64_t began_ns = cf_os_ns(CLOCK_MONOTONIC_RAW), began = cf_ticks();
    for (int i = 0; i < TRIPS; i++) {
        uint64_t start = cf_ticks();
        put(&there, payload);
        take(&back, payload);
        trips[i] = cf_ticks() - start;
    }
    double ns_per_tick =
        (double)(cf_os_ns(CLOCK_MONOTONIC_RAW) - began_ns) / (double)(cf_ticks() - began);
    uint64_t flood_ns = cf_os_ns(CLOCK_MONOTONIC_RAW);
    for (int i = 0; i < FLOOD; i++)
        put(&there, payload);
    take(&back, payload);
    flood_ns = cf_os_ns(CLOCK_MONOTONIC_RAW) - flood_ns;
    cf_ring_detach(&back);
    cf_ring_close(&there);
    name_of(there_id, name, sizeof name);
    unlinkat(directory_fd, name, 0);
    name_of(back_id, name, sizeof name);
    unlinkat(directory_fd, name, 0);
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
