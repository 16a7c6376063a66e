/* Where segments and rings are: a private directory, files whose space is reserved before it is
 * written, and who a process is. */
#ifndef CF_PLACE_H
#define CF_PLACE_H

#include <stddef.h>
#include <stdint.h>

/* Opens the directory, made with mode 0700 if it is not there. Returns a descriptor or a negative
 * errno: -EPERM for a link, another's directory, or one that is open to others. */
int cf_place_open(const char *directory);

/* Reserves the bytes of a file: writing into a hole of a full file system is SIGBUS. 0 or a
 * negative errno; -EFBIG instead of SIGXFSZ beyond RLIMIT_FSIZE. */
int cf_place_reserve(int fd, uint64_t from, uint64_t to);

/* Makes a file at least so long; what it gains is a hole. 0 or a negative errno; -EFBIG instead of
 * SIGXFSZ beyond RLIMIT_FSIZE. */
int cf_place_grow(int fd, uint64_t bytes);

/* Takes a write lock on bytes of a file, held by this open file description until it is closed, by
 * death too. 0, -EAGAIN when another holds one, or another negative errno. */
int cf_place_lock(int fd, uint64_t from, uint64_t bytes);

/* Gives the lock back; 0 or a negative errno. */
int cf_place_unlock(int fd, uint64_t from, uint64_t bytes);

/* Returns 1 when somebody else holds a lock on a byte, 0 when nobody does, or a negative errno. */
int cf_place_is_locked(int fd, uint64_t byte);

/* Field 22 of /proc/self/stat, the inode of /proc/self/ns/pid: 0 where they can not be read. */
uint64_t cf_place_start_time(void);
uint64_t cf_place_pid_namespace(void);

/* Writes this boot's id, "" where the kernel tells none. */
void cf_place_boot_id(char *boot_id, size_t capacity);

/* Writes the arguments the process was started with, each ended by NUL, as far as they fit; returns
 * their length, 0 where they can not be read. */
size_t cf_place_command_line(char *text, size_t capacity);

/* What the process has been told of itself, or sees. Each first look into /proc costs a new process
 * 20 us, as the kernel makes its entries there. */
struct cf_known {
    char boot_id[40];             /* "" = not known */
    uint64_t pid_namespace;       /* 0 = not known */
    const char *const *arguments; /* NULL = not known; as the kernel laid them out */
    size_t argument_count;
};

/* Lets the functions above tell what is known instead of looking: the boot always, the namespace
 * but in a forked child, the arguments once. Before there are threads. */
void cf_place_know(const struct cf_known *known);

/* As snprintf of "%s", which costs a new process some page faults: the length of the text, which
 * was cut when that is not below the capacity. */
size_t cf_place_copy(char *into, size_t capacity, const char *text);

/* Reads a small file into a NUL-terminated buffer; its length, or -1. */
long cf_place_read(const char *path, char *buffer, size_t capacity);

/* A descriptor that holds locks. A forked child closes it: the open file description is the
 * parent's, and a child that kept it would keep the parent's locks after the parent's death. A
 * mapping made of it would do the same: map another description of the file. */
struct cf_held_file {
    int fd; /* -1 when released, and in a forked child */
    struct cf_held_file *next, *previous;
};

/* Enters the descriptor into the process's list and owns it from then on; nothing for -1. The
 * struct must stay where it is until it is released. Thread-safe. */
void cf_hold_file(struct cf_held_file *file, int fd);

/* Closes the descriptor and with it gives up its locks. Nothing for a released one. Thread-safe. */
void cf_release_file(struct cf_held_file *file);

#endif
