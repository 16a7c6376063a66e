/* The preload library and the environment: the program sees what it would have seen; a program that
 * replaces itself by exec is counted on; its children are not, unless they are to be followed. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc.h"
#include "alloc_next.h"
#include "owner.h"
#include "place.h"
#include "tick.h"

#define PRELOAD "LD_PRELOAD"

enum { REQUEST_BYTES = CF_SEGMENT_PATH_BYTES + 128 };

static char request[REQUEST_BYTES]; /* "CFCTL_ALLOC=..."; empty: nothing is to be put back */
static char library[CF_SEGMENT_PATH_BYTES];
static pid_t counted_pid;

/* The next definitions, looked up when the process begins: a child of many threads can not. */
static struct {
    int (*execve)(const char *, char *const *, char *const *);
    int (*execvpe)(const char *, char *const *, char *const *);
    int (*fexecve)(int, char *const *, char *const *);
    int (*execveat)(int, const char *, char *const *, char *const *, int);
    void (*leave)(int);
} next;

static void look_up(void) {
    cf_alloc_next("execve", &next.execve);
    cf_alloc_next("execvpe", &next.execvpe);
    cf_alloc_next("fexecve", &next.fexecve);
    cf_alloc_next("execveat", &next.execveat);
    cf_alloc_next("_exit", &next.leave);
}

/* Takes this library out of a list of LD_PRELOAD, in place. */
static void remove_entry(char *list, const char *entry) {
    size_t length = strlen(entry);
    for (char *at = list; (at = strstr(at, entry)) != NULL; at++) {
        bool starts = at == list || strchr(": ", at[-1]);
        bool ends = at[length] == '\0' || strchr(": ", at[length]);
        if (!starts || !ends)
            continue;
        char *rest = at + length + (at[length] != '\0');
        memmove(at, rest, strlen(rest) + 1);
        size_t left = strlen(list);
        if (*at == '\0' && left > 0 && strchr(": ", list[left - 1]))
            list[left - 1] = '\0';
        return;
    }
}

static void clean_environment(void) {
    char *list = getenv(PRELOAD);
    if (list) {
        remove_entry(list, library);
        if (*list == '\0')
            unsetenv(PRELOAD);
    }
    unsetenv(CF_ALLOC_REQUEST);
}

/* Copies what stands before the next colon and returns what follows it; NULL when it does not fit.
 */
static const char *take_field(const char *text, char *field, size_t capacity) {
    const char *end = strchr(text, ':');
    size_t length = end ? (size_t)(end - text) : capacity;
    if (length >= capacity)
        return NULL;
    memcpy(field, text, length);
    field[length] = '\0';
    return end + 1;
}

static void configure(const char *text, const char *const *arguments, size_t argument_count) {
    struct cf_known known = {.arguments = arguments, .argument_count = argument_count};
    char limit[24], counter[4], namespace[24], run_id[40];
    const char *rest = take_field(text, limit, sizeof limit);
    rest = rest ? take_field(rest, counter, sizeof counter) : NULL;
    rest = rest ? take_field(rest, known.boot_id, sizeof known.boot_id) : NULL;
    rest = rest ? take_field(rest, namespace, sizeof namespace) : NULL;
    rest = rest ? take_field(rest, run_id, sizeof run_id) : NULL;
    if (!rest)
        return;
    if (counter[0] == '1')
        cf_tick_trust_counter();
    known.pid_namespace = strtoull(namespace, NULL, 10);
    cf_place_know(&known);
    cf_owner_configure(rest, run_id, strtoull(limit, NULL, 10));
}

void cf_alloc_take_request(const char *const *arguments, size_t argument_count) {
    struct cf_alloc_object own = {.address = &counted_pid};
    cf_alloc_find_object(&own);
    if (own.name)
        cf_place_copy(library, sizeof library, own.name);
    look_up();
    counted_pid = getpid();
    const char *text = getenv(CF_ALLOC_REQUEST);
    if (!text) {
        char directory[64];
        snprintf(directory, sizeof directory, "/dev/shm/cfctl-%ld", (long)geteuid());
        const char *named = getenv("CFCTL_SEGMENT_DIR");
        cf_owner_configure(named && *named ? named : directory, getenv("CFCTL_RUN_ID"),
                           CF_SEGMENT_DEFAULT_LIMIT);
        return;
    }
    bool follow = text[0] == '1';
    if (text[0] != '\0' && text[1] == ':')
        configure(text + 2, arguments, argument_count);
    if (follow)
        return;
    memcpy(request, CF_ALLOC_REQUEST "=", sizeof CF_ALLOC_REQUEST);
    cf_place_copy(request + sizeof CF_ALLOC_REQUEST, sizeof request - sizeof CF_ALLOC_REQUEST,
                  text);
    clean_environment();
}

/* Calls execve with this library back in the environment when it is the counted process that
 * replaces itself: not a child, nor one of vfork, which has another pid. */
static int exec_counted(int (*call)(const char *, char *const *, char *const *, int, int),
                        const char *path, char *const *arguments, char *const *variables, int fd,
                        int flags) {
    if (request[0] == '\0' || getpid() != counted_pid)
        return call(path, arguments, variables, fd, flags);
    size_t count = 0;
    const char *others = "";
    for (; variables && variables[count]; count++) {
        if (strncmp(variables[count], PRELOAD "=", sizeof PRELOAD) == 0)
            others = variables[count] + sizeof PRELOAD;
    }
    /* On the stack: an exec may follow a signal or a fork of many threads. */
    char preload[strlen(others) + strlen(library) + sizeof PRELOAD + 2];
    snprintf(preload, sizeof preload, PRELOAD "=%s%s%s", library, *others ? ":" : "", others);
    char *with[count + 3];
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (strncmp(variables[i], PRELOAD "=", sizeof PRELOAD) != 0)
            with[used++] = variables[i];
    }
    with[used++] = preload;
    with[used++] = request;
    with[used] = NULL;
    cf_alloc_end();
    cf_owner_close();
    int result = call(path, arguments, with, fd, flags);
    int saved_errno = errno;
    cf_owner_reopen();
    errno = saved_errno;
    return result;
}

static int not_there(void) {
    errno = ENOSYS;
    return -1;
}

static int call_execve(const char *path, char *const *arguments, char *const *variables, int fd,
                       int flags) {
    (void)fd, (void)flags;
    return next.execve ? next.execve(path, arguments, variables) : not_there();
}

static int call_execvpe(const char *path, char *const *arguments, char *const *variables, int fd,
                        int flags) {
    (void)fd, (void)flags;
    return next.execvpe ? next.execvpe(path, arguments, variables) : not_there();
}

static int call_fexecve(const char *path, char *const *arguments, char *const *variables, int fd,
                        int flags) {
    (void)path, (void)flags;
    return next.fexecve ? next.fexecve(fd, arguments, variables) : not_there();
}

static int call_execveat(const char *path, char *const *arguments, char *const *variables, int fd,
                         int flags) {
    return next.execveat ? next.execveat(fd, path, arguments, variables, flags) : not_there();
}

CF_EXPORT int execve(const char *path, char *const arguments[], char *const variables[]) {
    return exec_counted(call_execve, path, arguments, variables, -1, 0);
}

CF_EXPORT int execv(const char *path, char *const arguments[]) {
    return exec_counted(call_execve, path, arguments, environ, -1, 0);
}

CF_EXPORT int execvpe(const char *file, char *const arguments[], char *const variables[]) {
    return exec_counted(call_execvpe, file, arguments, variables, -1, 0);
}

CF_EXPORT int execvp(const char *file, char *const arguments[]) {
    return exec_counted(call_execvpe, file, arguments, environ, -1, 0);
}

CF_EXPORT int fexecve(int fd, char *const arguments[], char *const variables[]) {
    return exec_counted(call_fexecve, NULL, arguments, variables, fd, 0);
}

CF_EXPORT int execveat(int fd, const char *path, char *const arguments[], char *const variables[],
                       int flags) {
    return exec_counted(call_execveat, path, arguments, variables, fd, flags);
}

/* The arguments of execl and its like, as an array on the caller's stack. */
#define COLLECT(first, list, arguments)                               \
    size_t argument_count = 1;                                        \
    va_start(list, first);                                            \
    while (va_arg(list, char *) != NULL)                              \
        argument_count++;                                             \
    va_end(list);                                                     \
    char *arguments[argument_count + 1];                              \
    arguments[0] = (char *)(uintptr_t)(first);                        \
    va_start(list, first);                                            \
    for (size_t argument = 1; argument <= argument_count; argument++) \
    arguments[argument] = va_arg(list, char *)

CF_EXPORT int execl(const char *path, const char *first, ...) {
    va_list list;
    COLLECT(first, list, arguments);
    va_end(list);
    return execv(path, arguments);
}

CF_EXPORT int execlp(const char *file, const char *first, ...) {
    va_list list;
    COLLECT(first, list, arguments);
    va_end(list);
    return execvp(file, arguments);
}

CF_EXPORT int execle(const char *path, const char *first, ...) {
    va_list list;
    COLLECT(first, list, arguments);
    char *const *variables = va_arg(list, char *const *);
    va_end(list);
    return execve(path, arguments, variables);
}

/* A process that leaves by _exit has ended, and was not killed. */
CF_EXPORT __attribute__((noreturn)) void _exit(int status) {
    cf_alloc_end();
    cf_owner_close();
    if (next.leave)
        next.leave(status);
    for (;;)
        syscall(SYS_exit_group, status);
}

CF_EXPORT __attribute__((noreturn)) void _Exit(int status) {
    _exit(status);
}
