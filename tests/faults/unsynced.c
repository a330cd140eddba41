/* Records what a program writes below a folder, and when it syncs, so that a power cut can be simulated.

   Loaded with LD_PRELOAD. UNSYNCED_ROOT names the folder, UNSYNCED_LOG the file that records are appended to; the log
   must not be below the folder. Each record is one write(2) with O_APPEND, so that records of several processes and
   threads have one order. The record of a write precedes the write, and that of a sync precedes the return to the
   caller: whoever was told of a sync finds it in the log. Nothing is synced in truth, which saves time.

   UNSYNCED_LIE=1 leaves out the records of syncs, as a disk that lies. While the file UNSYNCED_FULL exists, writes fail
   with ENOSPC.

   A record: op (1 byte), inode (8), offset (8), length of the path (4), of the second path (4), of the data (8), then
   these three. Little-endian machines only: the reader unpacks it as such. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char root[PATH_MAX];
static size_t root_length;
static dev_t root_device;
static const char *full;
static int lies;
static int log_descriptor = -1;

struct __attribute__((packed)) head {
    char op;
    uint64_t inode, offset;
    uint32_t path_length, other_length;
    uint64_t data_length;
};

__attribute__((constructor)) static void set_up(void) {
    const char *folder = getenv("UNSYNCED_ROOT"), *log = getenv("UNSYNCED_LOG"), *lie = getenv("UNSYNCED_LIE");
    struct stat found;
    if (folder == NULL || log == NULL || stat(folder, &found) != 0) return;
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    root_device = found.st_dev;
    full = getenv("UNSYNCED_FULL");
    lies = lie != NULL && *lie == '1';
    int opened = REAL(open)(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (opened < 0) abort();
    /* Away from the low numbers, which programs close and count. */
    log_descriptor = fcntl(opened, F_DUPFD_CLOEXEC, 900);
    if (log_descriptor < 0) log_descriptor = opened;
    else REAL(close)(opened);
}

static void record(char op, uint64_t inode, uint64_t offset, const char *path, const char *other,
                   const struct iovec *data, int count) {
    int kept = errno;
    struct head head = {op, inode, offset, path ? strlen(path) : 0, other ? strlen(other) : 0, 0};
    struct iovec parts[IOV_MAX];
    parts[0] = (struct iovec){&head, sizeof head};
    parts[1] = (struct iovec){(void *)path, head.path_length};
    parts[2] = (struct iovec){(void *)other, head.other_length};
    size_t whole = sizeof head + head.path_length + head.other_length;
    for (int i = 0; i < count; i++) {
        parts[3 + i] = data[i];
        head.data_length += data[i].iov_len;
    }
    whole += head.data_length;
    if (REAL(writev)(log_descriptor, parts, 3 + count) != (ssize_t)whole) abort();
    errno = kept;
}

/* Whether a path is below the folder; if so, `whole` is the path from the root of the file system. */
static int below(int folder, const char *path, char whole[PATH_MAX]) {
    if (log_descriptor < 0 || path == NULL) return 0;
    if (path[0] == '/') {
        snprintf(whole, PATH_MAX, "%s", path);
    } else if (folder == AT_FDCWD) {
        if (getcwd(whole, PATH_MAX) == NULL) return 0;
        size_t length = strlen(whole);
        snprintf(whole + length, PATH_MAX - length, "/%s", path[0] == '.' && path[1] == '/' ? path + 2 : path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        snprintf(whole + length, PATH_MAX - length, "/%s", path);
    }
    return strncmp(whole, root, root_length) == 0 && (whole[root_length] == '/' || whole[root_length] == 0);
}

/* Whether a descriptor is a file or folder below the folder that still has a name. */
static int known(int descriptor, struct stat *found, char path[PATH_MAX]) {
    char link[64];
    if (log_descriptor < 0 || fstat(descriptor, found) != 0 || found->st_dev != root_device) return 0;
    if (!(S_ISREG(found->st_mode) || S_ISDIR(found->st_mode)) || found->st_nlink == 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int known_file(int descriptor, struct stat *found) {
    char path[PATH_MAX];
    int kept = errno;
    int is = known(descriptor, found, path) && S_ISREG(found->st_mode);
    errno = kept;
    return is;
}

static int disk_full(void) { return full != NULL && access(full, F_OK) == 0; }

static void created(const char *path) {
    struct stat found;
    if (stat(path, &found) == 0) record('C', found.st_ino, 0, path, NULL, NULL, 0);
}

static void written(int descriptor, const struct stat *found, uint64_t offset, const struct iovec *data, int count) {
    int synced = !lies && (fcntl(descriptor, F_GETFL) & O_DSYNC) != 0;
    record(synced ? 'V' : 'W', found->st_ino, offset, NULL, NULL, data, count);
}

/* open: a file that the call makes is made apart from the rest, so that its creation is known for certain. */
static int open_recorded(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    if (!below(AT_FDCWD, path, whole)) return real(path, flags, mode);
    for (;;) {
        int opened = flags & O_EXCL ? -1 : real(path, flags & ~O_CREAT, mode);
        if (opened >= 0) {
            if (flags & O_TRUNC) {
                struct stat found;
                if (fstat(opened, &found) == 0) record('T', found.st_ino, 0, NULL, NULL, NULL, 0);
            }
            return opened;
        }
        if (!(flags & O_CREAT) || (!(flags & O_EXCL) && errno != ENOENT)) return opened;
        if (disk_full()) return errno = ENOSPC, -1;
        opened = real(path, flags | O_EXCL, mode);
        if (opened >= 0) {
            created(whole);
            return opened;
        }
        if (flags & O_EXCL || errno != EEXIST) return opened;
    }
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_recorded(REAL(open), path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_recorded(REAL(open64), path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE_OF(flags)
    if (folder == AT_FDCWD || path[0] == '/') return open_recorded(REAL(open), path, flags, mode);
    return REAL(openat)(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE_OF(flags)
    return openat(folder, path, flags, mode);
}

int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    struct stat found;
    if (known_file(descriptor, &found)) {
        if (disk_full()) return errno = ENOSPC, -1;
        written(descriptor, &found, offset, &(struct iovec){(void *)data, length}, 1);
    }
    return REAL(pwrite)(descriptor, data, length, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    return pwrite(descriptor, data, length, offset);
}

ssize_t pwritev(int descriptor, const struct iovec *data, int count, off_t offset) {
    struct stat found;
    if (known_file(descriptor, &found)) {
        if (disk_full()) return errno = ENOSPC, -1;
        written(descriptor, &found, offset, data, count);
    }
    return REAL(pwritev)(descriptor, data, count, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *data, int count, off64_t offset) {
    return pwritev(descriptor, data, count, offset);
}

/* Where write(2) will write. Two threads that write to one descriptor at once are no case here. */
static uint64_t place(int descriptor, const struct stat *found) {
    return fcntl(descriptor, F_GETFL) & O_APPEND ? (uint64_t)found->st_size : (uint64_t)lseek(descriptor, 0, SEEK_CUR);
}

ssize_t write(int descriptor, const void *data, size_t length) {
    struct stat found;
    if (known_file(descriptor, &found)) {
        if (disk_full()) return errno = ENOSPC, -1;
        written(descriptor, &found, place(descriptor, &found), &(struct iovec){(void *)data, length}, 1);
    }
    return REAL(write)(descriptor, data, length);
}

ssize_t writev(int descriptor, const struct iovec *data, int count) {
    struct stat found;
    if (known_file(descriptor, &found)) {
        if (disk_full()) return errno = ENOSPC, -1;
        written(descriptor, &found, place(descriptor, &found), data, count);
    }
    return REAL(writev)(descriptor, data, count);
}

int ftruncate(int descriptor, off_t length) {
    struct stat found;
    if (known_file(descriptor, &found)) record('T', found.st_ino, length, NULL, NULL, NULL, 0);
    return REAL(ftruncate)(descriptor, length);
}

int ftruncate64(int descriptor, off64_t length) { return ftruncate(descriptor, length); }

int truncate(const char *path, off_t length) {
    char whole[PATH_MAX];
    struct stat found;
    if (below(AT_FDCWD, path, whole) && stat(path, &found) == 0) record('T', found.st_ino, length, NULL, NULL, NULL, 0);
    return REAL(truncate)(path, length);
}

int truncate64(const char *path, off64_t length) { return truncate(path, length); }

/* Room that is only reserved reads as zeros; a file that grows by it grows as by ftruncate. */
static void grown(int descriptor, off_t end) {
    struct stat found;
    if (known_file(descriptor, &found) && end > found.st_size) record('T', found.st_ino, end, NULL, NULL, NULL, 0);
}

int posix_fallocate(int descriptor, off_t offset, off_t length) {
    if (disk_full()) return ENOSPC;
    grown(descriptor, offset + length);
    return REAL(posix_fallocate)(descriptor, offset, length);
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t length) {
    return posix_fallocate(descriptor, offset, length);
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    if (mode != 0) return errno = EOPNOTSUPP, -1; /* programs then write zeros, which are recorded */
    if (disk_full()) return errno = ENOSPC, -1;
    grown(descriptor, offset + length);
    return REAL(fallocate)(descriptor, mode, offset, length);
}

int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) {
    return fallocate(descriptor, mode, offset, length);
}

static int sync_recorded(int (*real)(int), int descriptor) {
    struct stat found;
    char path[PATH_MAX];
    if (!known(descriptor, &found, path)) return real(descriptor);
    if (!lies) record(S_ISDIR(found.st_mode) ? 'D' : 'S', found.st_ino, 0, path, NULL, NULL, 0);
    return 0;
}

int fsync(int descriptor) { return sync_recorded(REAL(fsync), descriptor); }

int fdatasync(int descriptor) { return sync_recorded(REAL(fdatasync), descriptor); }

int rename(const char *from, const char *to) {
    char whole[PATH_MAX], target[PATH_MAX];
    int done = REAL(rename)(from, to);
    if (done == 0 && below(AT_FDCWD, from, whole) && below(AT_FDCWD, to, target))
        record('R', 0, 0, whole, target, NULL, 0);
    return done;
}

int link(const char *from, const char *to) {
    char whole[PATH_MAX], target[PATH_MAX];
    int done = REAL(link)(from, to);
    if (done == 0 && below(AT_FDCWD, from, whole) && below(AT_FDCWD, to, target))
        record('L', 0, 0, whole, target, NULL, 0);
    return done;
}

int unlink(const char *path) {
    char whole[PATH_MAX];
    int done = REAL(unlink)(path);
    if (done == 0 && below(AT_FDCWD, path, whole)) record('U', 0, 0, whole, NULL, NULL, 0);
    return done;
}

int unlinkat(int folder, const char *path, int flags) {
    char whole[PATH_MAX];
    int done = REAL(unlinkat)(folder, path, flags);
    if (done == 0 && below(folder, path, whole)) record('U', 0, 0, whole, NULL, NULL, 0);
    return done;
}

int mkdir(const char *path, mode_t mode) {
    char whole[PATH_MAX];
    int done = REAL(mkdir)(path, mode);
    if (done == 0 && below(AT_FDCWD, path, whole)) record('M', 0, 0, whole, NULL, NULL, 0);
    return done;
}

int rmdir(const char *path) {
    char whole[PATH_MAX];
    int done = REAL(rmdir)(path);
    if (done == 0 && below(AT_FDCWD, path, whole)) record('U', 0, 0, whole, NULL, NULL, 0);
    return done;
}

/* What stdio writes does not pass through write above: it is recorded whole when the file is closed, as not synced. */
FILE *fopen(const char *path, const char *how) {
    char whole[PATH_MAX];
    struct stat found;
    int ours = strpbrk(how, "wa+") != NULL && below(AT_FDCWD, path, whole);
    int is_new = ours && stat(path, &found) != 0;
    FILE *opened = REAL(fopen)(path, how);
    if (opened != NULL && is_new) created(whole);
    return opened;
}

FILE *fopen64(const char *path, const char *how) { return fopen(path, how); }

int fclose(FILE *file) {
    struct stat found;
    char path[PATH_MAX];
    int descriptor = fileno(file);
    int ours = descriptor >= 0 && (fcntl(descriptor, F_GETFL) & O_ACCMODE) != O_RDONLY &&
               known(descriptor, &found, path) && S_ISREG(found.st_mode);
    int done = REAL(fclose)(file);
    if (ours) {
        int again = REAL(open)(path, O_RDONLY);
        if (again >= 0) {
            record('T', found.st_ino, 0, NULL, NULL, NULL, 0);
            char data[65536];
            ssize_t length;
            for (uint64_t offset = 0; (length = REAL(read)(again, data, sizeof data)) > 0; offset += length)
                record('W', found.st_ino, offset, NULL, NULL, &(struct iovec){data, length}, 1);
            REAL(close)(again);
        }
    }
    return done;
}
