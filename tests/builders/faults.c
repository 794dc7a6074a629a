/* A disk that fails, for LD_PRELOAD: counts what processes do in a folder, and lets the n-th call of a kind fail.

   FAULTS names a file with a `struct plan`, which all processes that inherit the variable share. The calls of a process
   without it are left alone. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, FSYNC, RENAME, CREATE, OPEN, READ, KINDS };

struct plan {
    long kind, code, from, to;  /* calls from .. to of a kind fail with errno = code; short: the first write is cut */
    long fired;
    long counts[KINDS];
    char folder[PATH_MAX], name[PATH_MAX];  /* name: what failed first */
};

static struct plan *shared(void) {
    static struct plan *plan = NULL;
    const char *file = plan ? NULL : getenv("FAULTS");
    if (file) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
        int handle = real(file, O_RDWR | O_CLOEXEC);
        void *map = handle < 0 ? MAP_FAILED : mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
        if (handle >= 0) close(handle);
        if (map != MAP_FAILED) plan = map;
    }
    return plan;
}

/* Whether this call fails; then errno is set. */
static int fails(int kind, const char *path) {
    int before = errno;
    struct plan *plan = shared();
    errno = before;
    size_t length = plan ? strlen(plan->folder) : 0;
    if (!plan || !path || strncmp(path, plan->folder, length) || (path[length] && path[length] != '/')) return 0;
    long number = __atomic_add_fetch(&plan->counts[kind], 1, __ATOMIC_SEQ_CST);
    if (kind != plan->kind || number < plan->from || number > plan->to) return 0;
    if (__atomic_fetch_add(&plan->fired, 1, __ATOMIC_SEQ_CST) == 0) strncpy(plan->name, path, PATH_MAX - 1);
    errno = plan->code;
    return 1;
}

static int fails_of_handle(int kind, int handle) {
    char link[64], path[PATH_MAX];
    if (!shared()) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

/* A disk that becomes full takes a part of the write. */
static size_t room_for(size_t size) { return errno == ENOSPC && shared()->fired == 1 ? size / 2 : 0; }

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *bytes, size_t size) {
    REAL(write);
    if (!fails_of_handle(WRITE, handle)) return real(handle, bytes, size);
    return room_for(size) ? real(handle, bytes, room_for(size)) : -1;
}

ssize_t writev(int handle, const struct iovec *parts, int count) {
    REAL(writev);
    return fails_of_handle(WRITE, handle) ? -1 : real(handle, parts, count);
}

ssize_t pwrite64(int handle, const void *bytes, size_t size, off64_t at) {
    REAL(pwrite64);
    return fails_of_handle(WRITE, handle) ? -1 : real(handle, bytes, size, at);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    return fails_of_handle(WRITE, fileno(file)) ? 0 : real(bytes, size, count, file);
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t count) {
    ssize_t (*real)(int, int, off64_t *, size_t) = dlsym(RTLD_NEXT, "sendfile64");
    return fails_of_handle(WRITE, out) ? -1 : real(out, in, at, count);
}

int posix_fallocate64(int handle, off64_t at, off64_t length) {
    REAL(posix_fallocate64);
    return fails_of_handle(WRITE, handle) ? errno : real(handle, at, length);
}

int fsync(int handle) {
    REAL(fsync);
    return fails_of_handle(FSYNC, handle) ? -1 : real(handle);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return fails(RENAME, to) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return fails(CREATE, path) ? -1 : real(path, mode);
}

static int fails_to_open(const char *path, int flags) {
    return fails(flags & (O_WRONLY | O_RDWR | O_CREAT) ? CREATE : OPEN, path);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails_to_open(path, flags) ? -1 : real(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    REAL(open);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails_to_open(path, flags) ? -1 : real(path, flags, mode);
}

FILE *fopen64(const char *path, const char *mode) {
    REAL(fopen64);
    return fails(strpbrk(mode, "wa+") ? CREATE : OPEN, path) ? NULL : real(path, mode);
}

FILE *fopen(const char *path, const char *mode) {
    REAL(fopen);
    return fails(strpbrk(mode, "wa+") ? CREATE : OPEN, path) ? NULL : real(path, mode);
}

ssize_t read(int handle, void *bytes, size_t size) {
    REAL(read);
    return fails_of_handle(READ, handle) ? -1 : real(handle, bytes, size);
}
