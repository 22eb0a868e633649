/* SPDX-License-Identifier: Apache-2.0
 *
 * command.c: fork, exec, two pipes read side by side, wait. */
#define _GNU_SOURCE /* posix_openpt, wait4, setgroups */

#include "tests/support/command.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__has_feature)
#define HAS(feature) __has_feature(feature)
#else
#define HAS(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS(address_sanitizer) ||               \
    HAS(thread_sanitizer) || HAS(memory_sanitizer)
const bool command_is_sanitized = true;
#else
const bool command_is_sanitized = false;
#endif

enum { ARGUMENTS_MAX = 24, CANNOT_START = 127 };

command_result command_said;
command_conditions command_under;

/* ---- starting ---- */

/* A pipe or a terminal: the end that is read, and the end that the command writes to. */
typedef struct stream {
    int read, written;
} stream;

static stream open_stream(bool terminal) {
    int ends[2];
    if (!terminal) {
        assert_int_equal(pipe(ends), 0);
        return (stream){ends[0], ends[1]};
    }
    int leader = posix_openpt(O_RDWR | O_NOCTTY);
    if (leader < 0) { /* a container without /dev/pts */
        print_message("no terminal can be had here: %s\n", strerror(errno));
        command_under.terminal = false;
        skip();
    }
    assert_true(grantpt(leader) == 0 && unlockpt(leader) == 0);
    int follower = open(ptsname(leader), O_RDWR | O_NOCTTY);
    assert_true(follower >= 0);
    return (stream){leader, follower};
}

/* In the child: never returns. */
static void become(char *const *arguments, stream out, stream err) {
    int input = open("/dev/null", O_RDONLY);
    if (dup2(input, 0) < 0 || dup2(out.written, 1) < 0 || dup2(err.written, 2) < 0) _exit(CANNOT_START);
    close(out.read);
    close(err.read);
    if (command_under.full_disk && dup2(open("/dev/full", O_WRONLY), 1) < 0) _exit(CANNOT_START);
    if (command_under.file_bytes > 0) {
        rlim_t bytes = (rlim_t)command_under.file_bytes;
        const struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
        signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit then fails with EFBIG */
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(CANNOT_START);
    }
    if (command_under.unprivileged && geteuid() == 0 &&
        (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
        _exit(CANNOT_START);
    execv(MLAR_TEST_COMMAND, arguments);
    _exit(CANNOT_START);
}

/* ---- listening ---- */

/* Appends what there is to `text`; false at the end of the stream (a terminal ends with EIO). */
static bool listen(int from, char *text, size_t text_bytes, size_t *used) {
    ssize_t got = read(from, text + *used, text_bytes - 1 - *used);
    if (got < 0 && errno == EINTR) return true;
    if (got <= 0) return false;
    *used += (size_t)got;
    text[*used] = '\0';
    if (*used + 1 == text_bytes) fail_msg("%s: says more than there is room for", command_said.line);
    return true;
}

static void listen_to_both(int out, int err) {
    size_t out_used = 0, err_used = 0;
    bool out_open = true, err_open = true;
    while (out_open || err_open) {
        struct pollfd streams[2] = {{.fd = out_open ? out : -1, .events = POLLIN},
                                    {.fd = err_open ? err : -1, .events = POLLIN}};
        if (poll(streams, 2, -1) < 0) continue;
        if (streams[0].revents) out_open = listen(out, command_said.out, sizeof command_said.out, &out_used);
        if (streams[1].revents) err_open = listen(err, command_said.err, sizeof command_said.err, &err_used);
    }
}

static double seconds(struct timeval t) {
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

static int start(char *const *arguments) {
    size_t used = 0;
    memset(&command_said, 0, sizeof command_said);
    for (int i = 0; arguments[i] != NULL && used < sizeof command_said.line; i++)
        used += (size_t)snprintf(command_said.line + used, sizeof command_said.line - used, "%s%s",
                                 i ? " " : "", arguments[i]);
    stream out = open_stream(false), err = open_stream(command_under.terminal);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) become(arguments, out, err);
    assert_true(child > 0);
    close(out.written);
    close(err.written);
    listen_to_both(out.read, err.read);
    close(out.read);
    close(err.read);
    int status;
    struct rusage usage;
    while (wait4(child, &status, 0, &usage) < 0) assert_int_equal(errno, EINTR);
    if (!WIFEXITED(status)) fail_msg("%s: ended by signal %d", command_said.line, WTERMSIG(status));
    command_said.code = WEXITSTATUS(status);
    command_said.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    return command_said.code;
}

/* ---- what tests call ---- */

static int start_with(const char *first, va_list more) {
    static char name[] = "mlarena";
    char *arguments[ARGUMENTS_MAX] = {name};
    int count = 1;
    for (const char *next = first; next != NULL; next = va_arg(more, const char *)) {
        assert_true(count + 1 < ARGUMENTS_MAX);
        arguments[count++] = (char *)(uintptr_t)next; /* execv takes them so and changes none */
    }
    return start(arguments);
}

int command_run(const char *first, ...) {
    va_list more;
    va_start(more, first);
    int code = start_with(first, more);
    va_end(more);
    return code;
}

void command_refuses(const char *needle, const char *first, ...) {
    va_list more;
    va_start(more, first);
    (void)start_with(first, more);
    va_end(more);
    command_must_exit(2);
    const char *end = strchr(command_said.err, '\n');
    if (command_said.out[0] != '\0' || strncmp(command_said.err, "mlarena: ", 9) != 0 || end == NULL ||
        end[1] != '\0' || strstr(command_said.err, needle) == NULL)
        fail_msg("%s: must say '%s' in one line, said:\n%s%s", command_said.line, needle, command_said.out,
                 command_said.err);
}

void command_must_exit(int code) {
    if (command_said.code == code) return;
    print_error("%s%s", command_said.out, command_said.err); /* fail_msg would cut it */
    fail_msg("%s: exit status %d, expected %d", command_said.line, command_said.code, code);
}

unsigned long long command_number(const char *label) {
    const char *at = strstr(command_said.out, label);
    if (at == NULL) at = strstr(command_said.err, label);
    char *end;
    unsigned long long number = at != NULL ? strtoull(at + strlen(label), &end, 10) : 0;
    if (at == NULL || end == at + strlen(label))
        fail_msg("%s: no number behind '%s'\n%s%s", command_said.line, label, command_said.out,
                 command_said.err);
    return number;
}
