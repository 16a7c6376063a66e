#include "topic.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, OPEN_ATTEMPTS = 100, NUMBER_ATTEMPTS = 1000 };

uint64_t cf_topic_hash(const char *topic, uint32_t bytes) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)topic[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static int open_own(int directory_fd, const char *name) {
    int fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                    S_IRUSR | S_IWUSR);
    if (fd < 0)
        return errno == ELOOP ? -EPERM : -errno;
    struct stat status;
    int error = fstat(fd, &status) != 0 ? -errno : 0;
    if (error == 0 && (!S_ISREG(status.st_mode) || status.st_uid != geteuid()))
        error = -EPERM;
    if (error != 0)
        close(fd);
    return error != 0 ? error : fd;
}

/* Takes the read lock and looks whether the name still leads to this file: the reaper may have
 * removed it between. 1, 0 = open again, or a negative errno. */
static int settle(int fd, int directory_fd, const char *name) {
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0)
        return errno == EAGAIN || errno == EACCES ? 0 : -errno;
    struct stat file, named;
    if (fstat(fd, &file) != 0)
        return -errno;
    return fstatat(directory_fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           named.st_ino == file.st_ino && named.st_dev == file.st_dev;
}

int cf_topic_open(struct cf_topic *topic, int directory_fd, uint64_t hash) {
    *topic = (struct cf_topic){.file.fd = -1, .hash = hash};
    char name[32];
    snprintf(name, sizeof name, "%016llx.topic", (unsigned long long)hash);
    int settled = 0, fd = -1;
    for (int attempt = 0; attempt < OPEN_ATTEMPTS && settled == 0; attempt++) {
        fd = open_own(directory_fd, name);
        if (fd < 0)
            return fd;
        settled = settle(fd, directory_fd, name);
        if (settled <= 0)
            close(fd);
    }
    if (settled <= 0)
        return settled < 0 ? settled : -EAGAIN;
    int error = cf_place_reserve(fd, 0, PAGE_BYTES);
    void *page =
        error != 0 ? MAP_FAILED : mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        error = error != 0 ? error : -errno;
        close(fd);
        return error;
    }
    topic->page = page;
    cf_hold_file(&topic->file, fd);
    return 0;
}

void cf_topic_close(struct cf_topic *topic) {
    if (!topic->page)
        return;
    munmap(topic->page, PAGE_BYTES);
    topic->page = NULL;
    cf_release_file(&topic->file);
}

void cf_topic_wake(struct cf_topic_page *page) {
    cf_ring_fence(CF_RING_WAKE_FENCE); /* Partner: the fence in cf_topic_prepare. */
    uint32_t word = __atomic_load_n(&page->waiters, CF_RING_WAITERS);
    /* Where another one changes it first, that is a wake-up of the same sleepers. */
    if (word & 1)
        __atomic_compare_exchange_n(&page->waiters, &word, word + 1, 0, CF_RING_WAITERS,
                                    CF_RING_WAITERS);
    syscall(SYS_futex, &page->waiters, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void cf_topic_announce(struct cf_topic_page *page) {
    /* Partner: the acquire in cf_subscription_poll; the ring's file is there. */
    __atomic_fetch_add(&page->generation, 1, __ATOMIC_RELEASE);
    cf_topic_wake(page);
}

int cf_topic_sleep(struct cf_topic_page *page, uint32_t word, uint64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    /* Shared between processes, so without FUTEX_PRIVATE_FLAG. */
    if (syscall(SYS_futex, &page->waiters, FUTEX_WAIT, word, &timeout, NULL, 0) == 0)
        return 0;
    return errno == EAGAIN ? 0 : -errno;
}

int cf_publisher_number(struct cf_held_file *file, int directory_fd) {
    int fd = open_own(directory_fd, "publishers");
    if (fd < 0)
        return fd;
    for (int attempt = 0; attempt < NUMBER_ATTEMPTS; attempt++) {
        uint16_t number = 0;
        /* At random, so that a number does not come again soon after its ring has ended. */
        if (getrandom(&number, sizeof number, 0) != sizeof number || number == 0)
            continue;
        int error = cf_place_lock(fd, number, 1);
        if (error == 0) {
            cf_hold_file(file, fd);
            return number;
        }
        if (error != -EAGAIN) {
            close(fd);
            return error;
        }
    }
    close(fd);
    return -EAGAIN;
}
