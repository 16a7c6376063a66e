/* Segment: what is published is whole, refusal is counted, a foreign directory is refused. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "operation.h"

static char directory[] = "/tmp/cf-segment-XXXXXX";

static const struct cf_entry *entry_at(const struct cf_segment *segment, uint64_t offset) {
    return (const void *)((const char *)segment->header + offset);
}

static int is_locked(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct flock probe = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    CHECK(fd >= 0 && fcntl(fd, F_OFD_GETLK, &probe) == 0);
    close(fd);
    return probe.l_type == F_WRLCK;
}

static void test_a_segment_is_private_locked_and_self_describing(void) {
    struct cf_segment segment;
    CHECK(cf_segment_open(&segment, directory, "run", CF_SEGMENT_DEFAULT_LIMIT) == 0);
    struct stat status;
    CHECK(stat(segment.path, &status) == 0 && (status.st_mode & 0777) == 0600);
    CHECK(is_locked(segment.path));
    const struct cf_segment_header *header = segment.header;
    CHECK(memcmp(header->magic, CF_SEGMENT_MAGIC, 8) == 0 && header->pid == (uint64_t)getpid());
    CHECK(header->start_time > 0 && strlen(header->boot_id) == 36);
    CHECK(strcmp(header->run_id, "run") == 0 && header->command_line_bytes > 0);
    uint64_t fields = 0, first, second;
    CHECK(cf_segment_add_entry(&segment, &cf_kind_operation, "one", 3, "k\0v", 4, &fields,
                               &first) == 0);
    CHECK(cf_segment_add_entry(&segment, &cf_kind_operation, "two", 3, NULL, 0, &fields, &second) ==
          0);
    CHECK(header->first_entry == first && entry_at(&segment, first)->next == second);
    CHECK(entry_at(&segment, first)->fields == entry_at(&segment, second)->fields);
    CHECK(memcmp(entry_at(&segment, first) + 1, "onek\0v", 7) == 0);
    char *path = strdup(segment.path);
    cf_segment_close(&segment);
    cf_segment_forget(&segment);
    CHECK(path && !is_locked(path) && unlink(path) == 0);
    free(path);
}

static void test_a_second_segment_of_a_process_gets_a_name_of_its_own(void) {
    struct cf_segment a, b;
    CHECK(cf_segment_open(&a, directory, NULL, CF_SEGMENT_DEFAULT_LIMIT) == 0);
    CHECK(cf_segment_open(&b, directory, NULL, CF_SEGMENT_DEFAULT_LIMIT) == 0);
    CHECK(strcmp(a.path, b.path) != 0);
    CHECK(unlink(a.path) == 0 && unlink(b.path) == 0);
    cf_segment_forget(&a);
    cf_segment_forget(&b);
}

static void test_a_released_shard_is_continued_by_the_next_thread(void) {
    struct cf_segment segment;
    CHECK(cf_segment_open_anonymous(&segment, CF_SEGMENT_DEFAULT_LIMIT) == 0);
    uint64_t fields = 0, entry;
    CHECK(cf_segment_add_entry(&segment, &cf_kind_operation, "x", 1, NULL, 0, &fields, &entry) ==
          0);
    struct cf_shard *first = cf_segment_claim_shard(&segment, entry, 11);
    struct cf_shard *second = cf_segment_claim_shard(&segment, entry, 12);
    CHECK(first && second && first != second && first->next != 0);
    const struct cf_operation *payload = cf_shard_payload(first);
    CHECK(payload->min == UINT64_MAX && payload->first_tick == UINT64_MAX && payload->count == 0);
    cf_segment_release_shard(first);
    CHECK(cf_segment_claim_shard(&segment, entry, 13) == first);
    CHECK(first->owners == 2 && first->owner_tid == 13);
    cf_segment_forget(&segment);
}

static void test_a_full_segment_refuses_and_counts(void) {
    struct cf_segment segment;
    CHECK(cf_segment_open_anonymous(&segment, 64 << 10) == 0);
    uint64_t fields = 0, entry;
    CHECK(cf_segment_add_entry(&segment, &cf_kind_operation, "x", 1, NULL, 0, &fields, &entry) ==
          0);
    CHECK(cf_segment_claim_shard(&segment, entry, 1) != NULL);
    CHECK(cf_segment_claim_shard(&segment, entry, 2) == NULL);
    CHECK(segment.header->shards_refused == 1);
    char name[CF_NAME_BYTES + 1] = {0};
    CHECK(cf_segment_add_entry(&segment, &cf_kind_operation, name, sizeof name, NULL, 0, &fields,
                               &entry) == -ENAMETOOLONG);
    cf_segment_forget(&segment);
}

static void test_a_link_or_an_open_directory_is_refused(void) {
    char link_path[64], open_path[64], missing_path[64];
    snprintf(link_path, sizeof link_path, "%s/link", directory);
    snprintf(open_path, sizeof open_path, "%s/open", directory);
    snprintf(missing_path, sizeof missing_path, "%s/missing/below", directory);
    struct cf_segment segment;
    CHECK(symlink(directory, link_path) == 0);
    CHECK(cf_segment_open(&segment, link_path, NULL, CF_SEGMENT_DEFAULT_LIMIT) == -EPERM);
    CHECK(mkdir(open_path, 0700) == 0 && chmod(open_path, 0755) == 0);
    CHECK(cf_segment_open(&segment, open_path, NULL, CF_SEGMENT_DEFAULT_LIMIT) == -EPERM);
    CHECK(cf_segment_open(&segment, missing_path, NULL, CF_SEGMENT_DEFAULT_LIMIT) == -ENOENT);
    CHECK(unlink(link_path) == 0 && rmdir(open_path) == 0);
}

/* RLIMIT_FSIZE would otherwise end the process with SIGXFSZ. */
static void test_a_file_size_limit_is_an_error_and_no_signal(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct cf_segment segment;
        struct rlimit limit = {1024, 1024};
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        CHECK(cf_segment_open(&segment, directory, NULL, CF_SEGMENT_DEFAULT_LIMIT) == -EFBIG);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
    CHECK(mkdtemp(directory) != NULL);
    test_a_segment_is_private_locked_and_self_describing();
    test_a_second_segment_of_a_process_gets_a_name_of_its_own();
    test_a_released_shard_is_continued_by_the_next_thread();
    test_a_full_segment_refuses_and_counts();
    test_a_link_or_an_open_directory_is_refused();
    test_a_file_size_limit_is_an_error_and_no_signal();
    CHECK(rmdir(directory) == 0);
    return 0;
}
