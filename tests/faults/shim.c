/* Makes the Nth file operation below a folder fail, kill, or stop its process. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <dirent.h>
#include <unistd.h>

enum { KILL = 0, STOP = -1 };
static char root[4096];
static long target = 0, seen = 0;
static int action = 0, changes_only = 0;

/* Count operations below `folder`; at number `n` do `what`: KILL, STOP, or fail with this errno. */
void fault_arm(const char *folder, long n, int what, int only_changes) {
    snprintf(root, sizeof root, "%s", folder);
    seen = 0, target = n, action = what, changes_only = only_changes;
}
long fault_seen(void) { return seen; }

static int below(const char *path) {
    size_t length = strlen(root);
    return length && path && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}
static int fails(const char *path, int changes) {
    if (!below(path) || (changes_only && !changes)) return 0;
    if (++seen != target) return 0;
    if (action == KILL) kill(getpid(), SIGKILL);
    if (action == STOP) { kill(getpid(), SIGSTOP); return 0; }
    errno = action;
    return 1;
}
static int fails_fd(int fd, int changes) {
    char link[64], path[4096];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    int kept = errno, failed = fails(path, changes);
    if (!failed) errno = kept;
    return failed;
}
static int writes(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE mode_t mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
#define OPEN(name) int name(const char *path, int flags, ...) { MODE return fails(path, writes(flags)) ? -1 : REAL(name)(path, flags, mode); }
#define OPENAT(name) int name(int dir, const char *path, int flags, ...) { MODE return fails(path, writes(flags)) ? -1 : REAL(name)(dir, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

ssize_t read(int fd, void *b, size_t n) { return fails_fd(fd, 0) ? -1 : REAL(read)(fd, b, n); }
ssize_t write(int fd, const void *b, size_t n) { return fails_fd(fd, 1) ? -1 : REAL(write)(fd, b, n); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return fails_fd(fd, 1) ? -1 : REAL(pwrite64)(fd, b, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { return fails_fd(fd, 1) ? -1 : REAL(writev)(fd, v, n); }
int fsync(int fd) { return fails_fd(fd, 1) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_fd(fd, 1) ? -1 : REAL(fdatasync)(fd); }
int ftruncate64(int fd, off64_t n) { return fails_fd(fd, 1) ? -1 : REAL(ftruncate64)(fd, n); }
int posix_fallocate64(int fd, off64_t o, off64_t n) { return fails_fd(fd, 1) ? errno : REAL(posix_fallocate64)(fd, o, n); }
int posix_fallocate(int fd, off_t o, off_t n) { return fails_fd(fd, 1) ? errno : REAL(posix_fallocate)(fd, o, n); }
int flock(int fd, int how) { return fails_fd(fd, 0) ? -1 : REAL(flock)(fd, how); }
int rename(const char *a, const char *b) { return fails(a, 1) ? -1 : REAL(rename)(a, b); }
int renameat(int d, const char *a, int e, const char *b) { return fails(a, 1) ? -1 : REAL(renameat)(d, a, e, b); }
int unlink(const char *p) { return fails(p, 1) ? -1 : REAL(unlink)(p); }
int mkdir(const char *p, mode_t m) { return fails(p, 1) ? -1 : REAL(mkdir)(p, m); }
int rmdir(const char *p) { return fails(p, 1) ? -1 : REAL(rmdir)(p); }
DIR *opendir(const char *p) { return fails(p, 0) ? NULL : REAL(opendir)(p); }
