#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

long cf_place_read(const char *path, char *buffer, size_t capacity) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    ssize_t got;
    while (length < capacity - 1 && (got = read(fd, buffer + length, capacity - 1 - length)) != 0) {
        if (got > 0)
            length += (size_t)got;
        else if (errno != EINTR)
            break;
    }
    close(fd);
    buffer[length] = '\0';
    return (long)length;
}

/* Field 22 of /proc/self/stat; fields are counted after the last ')', as a command may hold one. */
uint64_t cf_place_start_time(void) {
    char text[1024];
    if (cf_place_read("/proc/self/stat", text, sizeof text) <= 0)
        return 0;
    const char *cursor = strrchr(text, ')');
    for (int field = 2; cursor && field < 22; field++)
        cursor = strchr(cursor + 1, ' ');
    return cursor ? strtoull(cursor + 1, NULL, 10) : 0;
}

static struct cf_known known;
static pid_t knowing_pid;

void cf_place_know(const struct cf_known *told) {
    known = *told;
    knowing_pid = getpid();
}

size_t cf_place_copy(char *into, size_t capacity, const char *text) {
    size_t length = strlen(text), kept = length < capacity ? length : capacity - 1;
    memcpy(into, text, kept);
    into[kept] = '\0';
    return length;
}

uint64_t cf_place_pid_namespace(void) {
    if (known.pid_namespace != 0 && knowing_pid == getpid())
        return known.pid_namespace;
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
}

void cf_place_boot_id(char *boot_id, size_t capacity) {
    if (known.boot_id[0] != '\0')
        cf_place_copy(boot_id, capacity, known.boot_id);
    else if (cf_place_read("/proc/sys/kernel/random/boot_id", boot_id, capacity) > 0)
        boot_id[strcspn(boot_id, "\n")] = '\0';
    else
        boot_id[0] = '\0';
}

size_t cf_place_command_line(char *text, size_t capacity) {
    if (!known.arguments || knowing_pid != getpid()) {
        long length = cf_place_read("/proc/self/cmdline", text, capacity);
        return length > 0 ? (size_t)length : 0;
    }
    size_t used = 0;
    for (size_t i = 0; i < known.argument_count && used < capacity - 1; i++) {
        size_t length = strlen(known.arguments[i]) + 1, room = capacity - 1 - used;
        size_t kept = length < room ? length : room;
        memcpy(text + used, known.arguments[i], kept);
        used += kept;
    }
    text[used] = '\0';
    known.arguments = NULL; /* once: the program may write over them */
    return used;
}

int cf_place_open(const char *directory) {
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return -errno;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ELOOP || errno == ENOTDIR ? -EPERM : -errno;
    struct stat status;
    int result = fstat(fd, &status) != 0 ? -errno : fd;
    if (result >= 0 && (status.st_uid != geteuid() || (status.st_mode & 077) != 0))
        result = -EPERM;
    if (result < 0)
        close(fd);
    return result;
}

/* Returns whether a file may be so long: growing past RLIMIT_FSIZE would be SIGXFSZ. */
static int is_allowed(uint64_t bytes) {
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
           bytes <= (uint64_t)limit.rlim_cur;
}

int cf_place_grow(int fd, uint64_t bytes) {
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if ((uint64_t)status.st_size >= bytes)
        return 0;
    if (!is_allowed(bytes))
        return -EFBIG;
    return ftruncate(fd, (off_t)bytes) == 0 ? 0 : -errno;
}

int cf_place_reserve(int fd, uint64_t from, uint64_t to) {
    if (!is_allowed(to))
        return -EFBIG;
    int error;
    do {
        error = posix_fallocate(fd, (off_t)from, (off_t)(to - from));
    } while (error == EINTR);
    return -error;
}

static int apply_lock(int fd, short type, uint64_t from, uint64_t bytes) {
    struct flock lock = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)from, .l_len = (off_t)bytes};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

int cf_place_lock(int fd, uint64_t from, uint64_t bytes) {
    return apply_lock(fd, F_WRLCK, from, bytes);
}

int cf_place_unlock(int fd, uint64_t from, uint64_t bytes) {
    return apply_lock(fd, F_UNLCK, from, bytes);
}

int cf_place_is_locked(int fd, uint64_t byte) {
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return -errno;
    return lock.l_type != F_UNLCK;
}

static pthread_mutex_t held_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t held_once = PTHREAD_ONCE_INIT;
static struct cf_held_file *held; /* guarded by held_lock */

static void before_fork(void) {
    pthread_mutex_lock(&held_lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&held_lock);
}

static void after_fork_in_child(void) {
    for (struct cf_held_file *file = held; file; file = file->next) {
        close(file->fd);
        file->fd = -1;
    }
    held = NULL;
    pthread_mutex_unlock(&held_lock);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void cf_hold_file(struct cf_held_file *file, int fd) {
    *file = (struct cf_held_file){.fd = fd};
    if (fd < 0)
        return;
    pthread_once(&held_once, watch_forks);
    pthread_mutex_lock(&held_lock);
    file->next = held;
    if (held)
        held->previous = file;
    held = file;
    pthread_mutex_unlock(&held_lock);
}

void cf_release_file(struct cf_held_file *file) {
    pthread_mutex_lock(&held_lock);
    if (file->fd >= 0) {
        close(file->fd);
        file->fd = -1;
        if (file->previous)
            file->previous->next = file->next;
        else
            held = file->next;
        if (file->next)
            file->next->previous = file->previous;
    }
    pthread_mutex_unlock(&held_lock);
}
