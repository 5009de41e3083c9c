/* Preloaded into a process under test: what its disk and its clock do is said by files in the directory $FAULT_SHIM.
 *
 * sync    "slow MS": a sync takes so much longer; "fail": it fails, and nothing is known of what was written before it.
 * clock   MS: the wall clock is so far ahead of the machine's (or behind, with a minus).
 * synced  written here: how many bytes of which file had been written when the last sync that succeeded began.
 *
 * libfaketime, which would do for the clock, does not get along with the allocator of redis-server 7.0: both wait for
 * each other before main().
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int path_of(const char *name, char *path) {
    const char *directory = getenv("FAULT_SHIM");
    return directory && snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX;
}

/* What a file says now; an empty string if there is none. */
static void read_order(const char *name, char order[32]) {
    char path[PATH_MAX];
    ssize_t size = 0;
    if (path_of(name, path)) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            size = read(fd, order, 31);
            close(fd);
        }
    }
    order[size > 0 ? size : 0] = 0;
}

static void note_synced(int fd, long long size) {
    char path[PATH_MAX], link[64], target[PATH_MAX], line[PATH_MAX + 32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length <= 0 || !path_of("synced", path)) return;
    target[length] = 0;
    int bytes = snprintf(line, sizeof line, "%020lld %s\n", size, target);
    int note = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (note < 0) return;
    if (pwrite(note, line, bytes, 0) < 0) abort();
    close(note);
}

static int sync_with(int fd, const char *name) {
    char order[32];
    struct stat before;
    read_order("sync", order);
    if (fstat(fd, &before) != 0) return -1;
    if (strncmp(order, "slow ", 5) == 0) usleep(atoi(order + 5) * 1000u);
    if (strncmp(order, "fail", 4) == 0) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int done = real(fd);
    if (done == 0) note_synced(fd, (long long)before.st_size);
    return done;
}

int fsync(int fd) { return sync_with(fd, "fsync"); }
int fdatasync(int fd) { return sync_with(fd, "fdatasync"); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        char order[32];
        read_order("clock", order);
        now->tv_sec += atoll(order) / 1000;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    int done = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return done;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
