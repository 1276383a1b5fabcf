/* Loaded before the C library into an agent under torture: disturbs what it does to files below TORTURE_ROOT, keeps track
 * of what a power cut would leave, and moves its clock.
 *
 * TORTURE_CONTROL names a file of eight 64-bit words, mapped shared, which the rig writes at any time:
 *   0 nanoseconds added to the clock of the day      1 faults, a bit each (below)
 *   2 one call in so many is disturbed (0, 1: all)   3 calls disturbed so far (written here)
 *
 * TORTURE_SHADOW names a directory that holds what is durable: `c/KEY` is the content of a file when it was last synced,
 * `d/NAME` lists a directory when it was last synced, a line "name KEY" each. KEY is inode and time of birth, since
 * inodes are used again. TORTURE_BOOT names a file that stands for the kernel's boot id.
 *
 * Build: cc -shared -fPIC -O2 -o shim.so shim.c -ldl
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FULL 1     /* no room: writes, allocations and new files fail with ENOSPC */
#define IO_ERROR 2 /* the same and syncs fail with EIO */
#define SHORT 4    /* writes do half of what they should and say so */
#define TORN 8     /* writes do half of what they should, the next one fails */
#define NO_RENAME 16
#define NO_SYNC 32 /* syncs fail with EIO, nothing else does */

static const char *root, *shadow, *boot;
static size_t root_length;
static volatile int64_t *control;
static __thread int fail_next;

#define REAL(type, name, ...) \
	static type (*real)(__VA_ARGS__); \
	if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int raw_open(const char *path, int flags, mode_t mode)
{
	REAL(int, "open64", const char *, int, ...);
	return real(path, flags, mode);
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("TORTURE_CONTROL");
	root = getenv("TORTURE_ROOT");
	shadow = getenv("TORTURE_SHADOW");
	boot = getenv("TORTURE_BOOT");
	if (!path || !root)
		return;
	root_length = strlen(root);
	int fd = raw_open(path, O_RDWR, 0);
	if (fd >= 0) {
		void *map = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map != MAP_FAILED)
			control = map;
		close(fd);
	}
}

static int below(const char *path)
{
	return root && strncmp(path, root, root_length) == 0 && path[root_length] == '/';
}

static int path_of(int fd, char *path, size_t size)
{
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, size - 1);
	if (length <= 0)
		return 0;
	path[length] = 0;
	return below(path);
}

static int faults(void)
{
	return control ? (int)control[1] : 0;
}

/* Whether this call is one of those disturbed. */
static int chosen(void)
{
	static _Thread_local uint32_t state;
	if (!state)
		state = ((uint32_t)(uintptr_t)&state ^ (uint32_t)time(NULL)) | 1;
	state = state * 1664525u + 1013904223u;
	int64_t one_in = control[2];
	if (one_in > 1 && (state >> 8) % one_in != 0)
		return 0;
	__atomic_fetch_add(&control[3], 1, __ATOMIC_RELAXED);
	return 1;
}

static int struck(int mask)
{
	return (faults() & mask) && chosen();
}

/* --- what is durable ------------------------------------------------------------------------- */

static int key_of(int fd, const char *path, char *key, size_t size)
{
	struct statx st;
	int flags = path ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH;
	if (statx(path ? AT_FDCWD : fd, path ? path : "", flags, STATX_INO | STATX_BTIME, &st) != 0)
		return 0;
	snprintf(key, size, "%llu-%lld-%u", (unsigned long long)st.stx_ino,
		 (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
	return 1;
}

static ssize_t raw_write(int fd, const void *bytes, size_t length)
{
	REAL(ssize_t, "write", int, const void *, size_t);
	return real(fd, bytes, length);
}

static int raw_rename(const char *from, const char *to)
{
	REAL(int, "rename", const char *, const char *);
	return real(from, to);
}

static void temporary(char *path, size_t size)
{
	static int number;
	snprintf(path, size, "%s/t-%d-%d", shadow, getpid(), __atomic_add_fetch(&number, 1, __ATOMIC_RELAXED));
}

static void keep_content(int fd, const char *path)
{
	char key[96], to[512], half[512];
	if (!shadow || !key_of(fd, NULL, key, sizeof key))
		return;
	snprintf(to, sizeof to, "%s/c/%s", shadow, key);
	if (strstr(path, ".segment")) {
		/* never written again: another name is as good as a copy */
		link(path, to);
		return;
	}
	int from = raw_open(path, O_RDONLY, 0);
	if (from < 0)
		return;
	temporary(half, sizeof half);
	int out = raw_open(half, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	struct stat st;
	if (out >= 0 && fstat(from, &st) == 0) {
		static const char zeros[65536];
		char *buffer = malloc(sizeof zeros);
		off_t at = 0;
		for (;;) {
			ssize_t got = read(from, buffer, sizeof zeros);
			if (got <= 0)
				break;
			if (memcmp(buffer, zeros, (size_t)got) != 0) {
				lseek(out, at, SEEK_SET);
				raw_write(out, buffer, (size_t)got);
			}
			at += got;
		}
		free(buffer);
		REAL(int, "ftruncate", int, off_t);
		if (real(out, at) == 0)
			raw_rename(half, to);
	}
	if (out >= 0)
		close(out);
	close(from);
}

static void keep_listing(const char *path)
{
	char to[512], half[512], line[512], key[96], entry_path[1024];
	const char *name = strrchr(path, '/');
	DIR *directory = shadow && name ? opendir(path) : NULL;
	if (!directory)
		return;
	temporary(half, sizeof half);
	snprintf(to, sizeof to, "%s/d/%s", shadow, name + 1);
	int out = raw_open(half, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	struct dirent *entry;
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(entry_path, sizeof entry_path, "%s/%s", path, entry->d_name);
		if (!key_of(-1, entry_path, key, sizeof key))
			continue;
		int length = snprintf(line, sizeof line, "%s %s\n", entry->d_name, key);
		raw_write(out, line, (size_t)length);
	}
	closedir(directory);
	close(out);
	raw_rename(half, to);
}

static void synced(int fd)
{
	char path[512];
	struct stat st;
	if (!path_of(fd, path, sizeof path) || fstat(fd, &st) != 0)
		return;
	if (S_ISDIR(st.st_mode))
		keep_listing(path);
	else
		keep_content(fd, path);
}

int fsync(int fd)
{
	char path[512];
	REAL(int, "fsync", int);
	if (faults() & (IO_ERROR | NO_SYNC) && path_of(fd, path, sizeof path) && chosen()) {
		errno = EIO;
		return -1;
	}
	int result = real(fd);
	if (result == 0)
		synced(fd);
	return result;
}

int fdatasync(int fd)
{
	char path[512];
	REAL(int, "fdatasync", int);
	if (faults() & (IO_ERROR | NO_SYNC) && path_of(fd, path, sizeof path) && chosen()) {
		errno = EIO;
		return -1;
	}
	int result = real(fd);
	if (result == 0)
		synced(fd);
	return result;
}

int msync(void *address, size_t length, int flags)
{
	REAL(int, "msync", void *, size_t, int);
	char line[1024], path[512] = "";
	FILE *maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		char name[512] = "";
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %511s", &from, &to, name) >= 2 &&
		    from <= (unsigned long)address && (unsigned long)address < to) {
			strcpy(path, name);
			break;
		}
	}
	if (maps)
		fclose(maps);
	if (below(path) && struck(IO_ERROR | NO_SYNC)) {
		errno = EIO;
		return -1;
	}
	int result = real(address, length, flags);
	if (result == 0 && below(path)) {
		int fd = raw_open(path, O_RDONLY, 0);
		if (fd >= 0) {
			keep_content(fd, path);
			close(fd);
		}
	}
	return result;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* How many bytes of a write to do; negative: fail. */
static ssize_t allowed(int fd, size_t length)
{
	char path[512];
	int now = faults();
	if (!(now & (FULL | IO_ERROR | SHORT | TORN)) && !fail_next)
		return (ssize_t)length;
	if (!path_of(fd, path, sizeof path))
		return (ssize_t)length;
	if (fail_next) {
		fail_next = 0;
		errno = ENOSPC;
		return -1;
	}
	if (!chosen())
		return (ssize_t)length;
	if (now & (FULL | IO_ERROR)) {
		errno = now & FULL ? ENOSPC : EIO;
		return -1;
	}
	if (length < 2)
		return (ssize_t)length;
	fail_next = now & TORN;
	return (ssize_t)(length / 2);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
	ssize_t can = allowed(fd, length);
	return can < 0 ? -1 : raw_write(fd, bytes, (size_t)can);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
	REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
	ssize_t can = allowed(fd, length);
	return can < 0 ? -1 : real(fd, bytes, (size_t)can, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
	return pwrite64(fd, bytes, length, at);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
	REAL(ssize_t, "writev", int, const struct iovec *, int);
	ssize_t can = allowed(fd, count > 0 ? pieces[0].iov_len : 0);
	if (can < 0)
		return -1;
	return real(fd, pieces, count);
}

static int allocate(int fd, off64_t at, off64_t length)
{
	char path[512];
	REAL(int, "posix_fallocate64", int, off64_t, off64_t);
	if ((faults() & (FULL | IO_ERROR)) && path_of(fd, path, sizeof path) && chosen())
		return ENOSPC;
	return real(fd, at, length);
}

int posix_fallocate64(int fd, off64_t at, off64_t length) { return allocate(fd, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return allocate(fd, at, length); }

static int cut(int fd, off64_t length)
{
	char path[512];
	REAL(int, "ftruncate64", int, off64_t);
	if ((faults() & (IO_ERROR | TORN)) && path_of(fd, path, sizeof path) && chosen()) {
		errno = EIO;
		return -1;
	}
	return real(fd, length);
}

int ftruncate64(int fd, off64_t length) { return cut(fd, length); }
int ftruncate(int fd, off_t length) { return cut(fd, length); }

int rename(const char *from, const char *to)
{
	if (below(to) && struck(NO_RENAME | IO_ERROR)) {
		errno = EIO;
		return -1;
	}
	return raw_rename(from, to);
}

static int opened(const char *path, int flags, mode_t mode)
{
	if (boot && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
		path = boot;
	if ((flags & O_CREAT) && below(path) && access(path, F_OK) != 0 && struck(FULL | IO_ERROR)) {
		errno = ENOSPC;
		return -1;
	}
	return raw_open(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list more;
	va_start(more, flags);
	mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
	va_end(more);
	return opened(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list more;
	va_start(more, flags);
	mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
	va_end(more);
	return opened(path, flags, mode);
}

/* --- the clock --------------------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *at)
{
	REAL(int, "clock_gettime", clockid_t, struct timespec *);
	int result = real(clock, at);
	if (result == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		int64_t nanos = at->tv_sec * 1000000000LL + at->tv_nsec + control[0];
		at->tv_sec = nanos / 1000000000LL;
		at->tv_nsec = nanos % 1000000000LL;
	}
	return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}
