#include "probe.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int read_run_delay(uint64_t *run_delay_ns) {
    char text[128];
    int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    const char *second = strchr(text, ' ');
    if (!second)
        return 0;
    *run_delay_ns = strtoull(second + 1, NULL, 10);
    return 1;
}

void cf_thread_load_read(struct cf_thread_load *load) {
    struct rusage usage;
    *load = (struct cf_thread_load){0};
    if (getrusage(RUSAGE_THREAD, &usage) == 0) {
        load->involuntary_switches = (uint64_t)usage.ru_nivcsw;
        load->voluntary_switches = (uint64_t)usage.ru_nvcsw;
        load->minor_faults = (uint64_t)usage.ru_minflt;
        load->major_faults = (uint64_t)usage.ru_majflt;
    }
    load->run_delay_known = read_run_delay(&load->run_delay_ns);
}

void cf_thread_load_since(struct cf_thread_load *load) {
    struct cf_thread_load now;
    cf_thread_load_read(&now);
    load->involuntary_switches = now.involuntary_switches - load->involuntary_switches;
    load->voluntary_switches = now.voluntary_switches - load->voluntary_switches;
    load->minor_faults = now.minor_faults - load->minor_faults;
    load->major_faults = now.major_faults - load->major_faults;
    load->run_delay_known = load->run_delay_known && now.run_delay_known;
    load->run_delay_ns = now.run_delay_ns - load->run_delay_ns;
}
