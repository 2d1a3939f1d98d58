/*-------------------------------------------------------------------------
 *
 * test_backup_dir.c
 *	  Tries to lose a file on its way to another file system, or back.
 *
 * /dev/shm is the other file system.  Every system call with which the code
 * under test changes or reads files is interposed: a call can be made to fail,
 * to do less than asked for, or to damage the copy, and the process can be
 * killed before and after each call.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#include "src/store/private.h"
#define SCRATCH
#include "common.h"

#define RUN		INT64CONST(42)
#define OWNER	"3c2f5a1e-0000-4000-8000-00000000002a"
#define FILE_NAME	"2024/05/a.mp3"

static char other[PATH_MAX];
static char backup[PATH_MAX];	/* its backup directory */


/* ----------
 * Interposed system calls
 * ----------
 */

static struct
{
	const char *call;			/* a call of this name ... */
	int			nth;			/* ... the n-th, 0: every call ... */
	int			errnum;			/* ... fails */
	bool		at_its_end;		/* copy_file_range: 0 */
	size_t		at_most;		/* bytes that are copied or written at once */
	bool		corrupt;		/* flip a byte of the copy after its fsync */
	void		(*before_copying) (void);
	void		(*before_rename) (void);
	int			die_at;			/* at the n-th boundary; 0: never */
	int			seen;			/* calls of that name */
	int			boundaries;
	int			n_range;		/* calls of copy_file_range */
	int			n_pwrite;
}			hook;

static void
boundary(void)
{
	if (++hook.boundaries == hook.die_at)
		_exit(0);
}

/* Returns whether the call, which is about to be made, is to fail. */
static bool
fails(const char *call)
{
	boundary();
	if (hook.call == NULL || strcmp(hook.call, call) != 0)
		return false;
	hook.seen++;
	if (hook.nth != 0 && hook.seen != hook.nth)
		return false;
	errno = hook.errnum;
	return true;
}

#define INTERPOSE(name, arguments) \
	do { \
		__typeof__(real arguments) rc; \
		if (fails(#name)) \
			return -1; \
		rc = real arguments; \
		boundary(); \
		return rc; \
	} while (0)

int
renameat2(int fd, const char *old, int new_fd, const char *new, unsigned int flags)
{
	REAL(renameat2);
	run_hook(&hook.before_rename);
	INTERPOSE(renameat2, (fd, old, new_fd, new, flags));
}

int
renameat(int fd, const char *old, int new_fd, const char *new)
{
	REAL(renameat);
	INTERPOSE(renameat, (fd, old, new_fd, new));
}

int
linkat(int fd, const char *old, int new_fd, const char *new, int flags)
{
	REAL(linkat);
	INTERPOSE(linkat, (fd, old, new_fd, new, flags));
}

int
unlinkat(int fd, const char *path, int flags)
{
	REAL(unlinkat);
	INTERPOSE(unlinkat, (fd, path, flags));
}

int
mkdirat(int fd, const char *path, mode_t mode)
{
	REAL(mkdirat);
	INTERPOSE(mkdirat, (fd, path, mode));
}

int
openat(int fd, const char *path, int flags,...)
{
	va_list		args;
	mode_t		mode;

	REAL(openat);
	va_start(args, flags);
	mode = va_arg(args, mode_t);
	va_end(args);
	if (flags & O_CREAT)
		INTERPOSE(openat, (fd, path, flags, mode));
	return real(fd, path, flags);
}

int
ftruncate(int fd, off_t size)
{
	REAL_LARGE(ftruncate);
	INTERPOSE(ftruncate, (fd, size));
}

int
fchown(int fd, uid_t owner, gid_t group)
{
	REAL(fchown);
	INTERPOSE(fchown, (fd, owner, group));
}

int
fchmod(int fd, mode_t mode)
{
	REAL(fchmod);
	INTERPOSE(fchmod, (fd, mode));
}

int
futimens(int fd, const struct timespec times[2])
{
	REAL(futimens);
	INTERPOSE(futimens, (fd, times));
}

int
fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	REAL(fsetxattr);
	INTERPOSE(fsetxattr, (fd, name, value, size, flags));
}

ssize_t
pread(int fd, void *buffer, size_t size, off_t offset)
{
	REAL_LARGE(pread);
	INTERPOSE(pread, (fd, buffer, size, offset));
}

ssize_t
pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
	REAL_LARGE(pwrite);
	hook.n_pwrite++;
	if (hook.at_most != 0)
		size = Min(size, hook.at_most);
	INTERPOSE(pwrite, (fd, buffer, size, offset));
}

ssize_t
copy_file_range(int in, off64_t * in_offset, int out, off64_t * out_offset,
				size_t size, unsigned int flags)
{
	REAL(copy_file_range);
	run_hook(&hook.before_copying);
	hook.n_range++;
	if (hook.at_its_end)
		return 0;
	if (hook.at_most != 0)
		size = Min(size, hook.at_most);
	INTERPOSE(copy_file_range, (in, in_offset, out, out_offset, size, flags));
}

static void
flip_a_byte(int fd)
{
	char		byte;
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
		return;
	hook.corrupt = false;
	if (pread(fd, &byte, 1, st.st_size - 1) != 1)
		abort();
	byte ^= 1;
	if (pwrite(fd, &byte, 1, st.st_size - 1) != 1)
		abort();
}

int
fsync(int fd)
{
	struct stat st;
	bool		regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	int			rc;

	REAL(fsync);
	if (fails("fsync") || fails(regular ? "fsync of file" : "fsync of directory"))
		return -1;
	rc = real(fd);
	boundary();
	if (hook.corrupt)
		flip_a_byte(fd);
	return rc;
}

int
ioctl(int fd, unsigned long request,...)
{
	va_list		args;
	int			from;

	REAL(ioctl);
	va_start(args, request);
	from = va_arg(args, int);
	va_end(args);
	INTERPOSE(ioctl, (fd, request, from));
}


/* ----------
 * Fixtures
 * ----------
 */

/* The copy, in the backup directory. */
static const char *
copy_at(const char *path)
{
	return tap_text("%s/" OWNER "/42/%s", backup, path);
}

static void
clean_up(void)
{
	memset(&hook, 0, sizeof(hook));
	remove_base();
	if (system(tap_text("rm -rf --one-file-system '%s'", other)) != 0)
		diag("%s was not removed", other);
}

static void
put_bytes(const char *path, const char *content, size_t size)
{
	FILE	   *file = fopen(path, "w");

	must(file != NULL, path);
	must(fwrite(content, 1, size, file) == size, path);
	fclose(file);
}

static bool
there(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static bool
holds(const char *path, const char *content, size_t size)
{
	FILE	   *file = fopen(path, "r");
	char	   *found = malloc(size + 1);
	bool		same;

	if (file == NULL)
	{
		free(found);
		return false;
	}
	same = fread(found, 1, size + 1, file) == size && memcmp(found, content, size) == 0;
	fclose(file);
	free(found);
	return same;
}

static bool
holds_text(const char *path, const char *text)
{
	return holds(path, text, strlen(text));
}

/* A store on the directories of the current case. */
static FileStore *
open_store(void)
{
	FileStore  *store = store_open(top);
	FileResult	result;

	must(store != NULL, "store_open");
	result = store_set_backup_dir(store, backup, OWNER);
	errno = result.errnum;
	must(result.outcome == FILE_OK, "store_set_backup_dir");
	return store;
}

/* Begin a case, with the backup directory in `where`. */
static FileStore *
fresh(const char *name, const char *where)
{
	memset(&hook, 0, sizeof(hook));
	snprintf(top, sizeof(top), "%s/%s", base, name);
	snprintf(backup, sizeof(backup), "%s/%s-backup", where, name);
	must(mkdir(top, 0755) == 0 && mkdir(backup, 0700) == 0, name);
	must(mkdir(at("2024"), 0755) == 0 && mkdir(at("2024/05"), 0755) == 0, name);
	return open_store();
}

static FileIdentity
put_and_know(FileStore *store, const char *path, const char *text)
{
	put_bytes(at(path), text, strlen(text));
	return know(store, path);
}

/* Returns whether neither side has an unfinished copy. */
static bool
is_clean(void)
{
	return !there(at(".audio_cleanup/copy.new")) &&
		!there(tap_text("%s/" OWNER "/copy.new", backup)) &&
		!there(at(".audio_cleanup/trash/42/" FILE_NAME));
}

static bool
is_outcome(FileResult result, FileOutcome outcome, int errnum, const char *text)
{
	bool		passed = ok(result.outcome == outcome && result.errnum == errnum, "%s", text);

	if (!passed)
		diag("outcome %d, errno %d (%s), failure %s", result.outcome, result.errnum,
			 strerror(result.errnum), result.failure ? result.failure : "none");
	return passed;
}

static int
outcome_of(FileResult result)
{
	if (result.errnum != 0)
		diag("%s: %s", result.failure, strerror(result.errnum));
	return result.outcome;
}

static int
place_of(FileStore *store, const FileIdentity *file)
{
	int			errnum;
	FilePlace	place = store_locate(store, RUN, FILE_NAME, file, true, &errnum);

	if (place == PLACE_UNKNOWN)
		diag("errno %d (%s)", errnum, strerror(errnum));
	return place;
}

/* "" and some sizes about the chunks. */
static char *
noise(size_t size)
{
	char	   *content = malloc(size + 1);
	uint64		state = 88172645463325252ULL;

	for (size_t i = 0; i < size; i++)
	{
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		content[i] = (char) state;
	}
	return content;
}


/* ----------
 * Cases
 * ----------
 */

static void
test_life(const char *name, const char *where, bool quick)
{
	FileStore  *store = fresh(name, where);
	FileIdentity file;
	struct stat before;
	struct stat after;
	char		attribute[8] = "";
	bool		attributes;
	int64		freed = -1;

	is(store_is_quick(store), quick, tap_text("%s: quick or not", name));
	put_bytes(at(FILE_NAME), "sound", 5);
	must(chmod(at(FILE_NAME), 0640) == 0, "chmod");
	attributes = setxattr(at(FILE_NAME), "user.artist", "me", 2, 0) == 0;
	must(stat(at(FILE_NAME), &before) == 0, "stat");
	file = know(store, FILE_NAME);
	is(place_of(store, &file), PLACE_UPLOAD, "located at its place");
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "captured");
	ok(!there(at(FILE_NAME)) && holds_text(copy_at(FILE_NAME), "sound"), "it is in the backup directory");
	must(stat(copy_at(FILE_NAME), &after) == 0, "stat");
	ok(after.st_mode == before.st_mode && after.st_uid == before.st_uid && after.st_gid == before.st_gid &&
	   after.st_mtim.tv_sec == before.st_mtim.tv_sec && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec,
	   "with mode, owner and time");
	is(quick, after.st_ino == before.st_ino && after.st_dev == before.st_dev, "renamed, or copied");
	must(stat(tap_text("%s/" OWNER, backup), &after) == 0, "stat");
	is(after.st_mode & 07777, 0700, "in a folder that is ours alone");
	is(place_of(store, &file), PLACE_TRASH, "located in the trash");
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_VANISHED, "captured again: vanished");
	is(place_of(store, &file), PLACE_TRASH, "which harms nothing");
	is(store_sync(store), 0, "sync");
	ok(is_clean(), "nothing else is left");

	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OK, "put back");
	ok(holds_text(at(FILE_NAME), "sound") && !there(copy_at(FILE_NAME)), "it is at its place");
	must(stat(at(FILE_NAME), &after) == 0, "stat");
	ok(after.st_mode == before.st_mode && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec, "with mode and time");
	if (attributes && getxattr(copy_at(FILE_NAME), "user.artist", attribute, 2) < 0 && quick)
		ok(getxattr(at(FILE_NAME), "user.artist", attribute, 2) == 2, "and its attributes");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_VANISHED, "put back again: vanished");

	file = know(store, FILE_NAME);
	must(rmdir(at("2024/05")) != 0, "rmdir");
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "captured anew");
	must(rmdir(at("2024/05")) == 0 && rmdir(at("2024")) == 0, "rmdir");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OK, "put back where no directory is left");
	file = know(store, FILE_NAME);
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "captured once more");
	is(outcome_of(store_destroy(store, 43, FILE_NAME, &file, &freed)), FILE_VANISHED, "not of another run");
	is(outcome_of(store_destroy(store, RUN, FILE_NAME, &file, &freed)), FILE_OK, "destroyed");
	is(freed, 5, "its bytes are freed");
	is(place_of(store, &file), PLACE_NOWHERE, "located nowhere");
	is(store_sync(store), 0, "sync");
	put_bytes(tap_text("%s/" OWNER "/copy.new", backup), "half", 4);
	store_tidy(store, RUN);
	ok(!there(tap_text("%s/" OWNER "/copy.new", backup)) || quick, "an unfinished copy is tidied away");
	ok(rmdir(tap_text("%s/" OWNER, backup)) == 0 || quick, "the folder of the owner stays, and is empty");
	store_close(store);
}

static void
test_refused(void)
{
	FileStore  *store = fresh("refused", other);
	static const char *const owners[] = {"", ".", "..", "a/b", "/", "../x"};

	store_close(store);
	store = store_open(top);
	for (int i = 0; i < (int) lengthof(owners); i++)
		is_outcome(store_set_backup_dir(store, backup, owners[i]), FILE_FAILED, EINVAL,
				   tap_text("owner \"%s\" is refused", owners[i]));
	is_outcome(store_set_backup_dir(store, "relative", OWNER), FILE_FAILED, EINVAL, "relative");
	is_outcome(store_set_backup_dir(store, tap_text("%s/no", backup), OWNER), FILE_FAILED, ENOENT, "missing");
	put_bytes(tap_text("%s/file", backup), "x", 1);
	is_outcome(store_set_backup_dir(store, tap_text("%s/file", backup), OWNER), FILE_FAILED, ENOTDIR, "a file");
	must(chmod(backup, 0770) == 0, "chmod");
	is_outcome(store_set_backup_dir(store, backup, OWNER), FILE_FAILED, EPERM, "writable by the group");
	must(chmod(backup, 0702) == 0, "chmod");
	is_outcome(store_set_backup_dir(store, backup, OWNER), FILE_FAILED, EPERM, "writable by all");
	must(chmod(backup, 0755) == 0, "chmod");
	if (geteuid() == 0)
	{
		must(chown(backup, 65534, 65534) == 0, "chown");
		is_outcome(store_set_backup_dir(store, backup, OWNER), FILE_FAILED, EPERM, "somebody else's");
		must(chown(backup, 0, 0) == 0, "chown");
	}
	ok(store_is_quick(store), "the store is as it was");
	is_outcome(store_set_backup_dir(store, backup, OWNER), FILE_OK, 0, "readable by all will do");
	is_outcome(store_set_backup_dir(store, backup, OWNER), FILE_FAILED, EINVAL, "but only once");
	ok(!store_is_quick(store), "and now it copies");
	store_close(store);
}

/* Ways in which the kernel may copy. */
static const struct Way
{
	const char *name;
	const char *call;
	int			errnum;
	bool		at_its_end;
	size_t		at_most;
}			ways[] = {
	{"as the kernel likes", NULL, 0, false, 0},
	{"EXDEV", "copy_file_range", EXDEV, false, 0},
	{"EINVAL", "copy_file_range", EINVAL, false, 0},
	{"ENOSYS", "copy_file_range", ENOSYS, false, 0},
	{"EOPNOTSUPP", "copy_file_range", EOPNOTSUPP, false, 0},
	{"EPERM of a sandbox", "copy_file_range", EPERM, false, 0},
	{"0", NULL, 0, true, 0},
	{"short", NULL, 0, false, 77777},
	{"short by hand", "copy_file_range", EXDEV, false, 55555},
};

static void
test_sizes(void)
{
	FileStore  *store = fresh("sizes", other);
	static const size_t sizes[] = {0, 1, 4096, 256 * 1024, COPY_CHUNK - 1, COPY_CHUNK,
	COPY_CHUNK + 1, 3 * COPY_CHUNK + 4711};

	for (int w = 0; w < (int) lengthof(ways); w++)
		for (int i = 0; i < (int) lengthof(sizes); i++)
		{
			char	   *content = noise(sizes[i]);
			FileIdentity file;

			put_bytes(at(FILE_NAME), content, sizes[i]);
			file = know(store, FILE_NAME);
			hook.seen = hook.nth = 0;
			hook.call = ways[w].call;
			hook.errnum = ways[w].errnum;
			hook.at_its_end = ways[w].at_its_end;
			hook.at_most = ways[w].at_most;
			ok(outcome_of(store_capture(store, RUN, FILE_NAME, &file)) == FILE_OK &&
			   !there(at(FILE_NAME)) && holds(copy_at(FILE_NAME), content, sizes[i]) &&
			   outcome_of(store_put_back(store, RUN, FILE_NAME, &file)) == FILE_OK &&
			   !there(copy_at(FILE_NAME)) && holds(at(FILE_NAME), content, sizes[i]),
			   "%zu bytes there and back: %s", sizes[i], ways[w].name);
			hook.call = NULL;
			free(content);
		}
	store_close(store);
}

static void
test_sparse(void)
{
	FileStore  *store = fresh("sparse", other);
	const int64 size = INT64CONST(2) * 1024 * 1024 * 1024 + 12345;
	int			fd = open(at(FILE_NAME), O_RDWR | O_CREAT, 0644);
	FileIdentity file;
	struct stat st;
	char		found[8] = "";

	must(fd >= 0 && ftruncate(fd, size) == 0 && pwrite(fd, "middle", 6, size / 2) == 6 &&
		 pwrite(fd, "end", 3, size - 3) == 3, "sparse file");
	close(fd);
	file = know(store, FILE_NAME);
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "more than 2 GiB, with holes");
	must(stat(copy_at(FILE_NAME), &st) == 0, "stat");
	is(st.st_size, size, "has its size");
	ok(st.st_blocks < 2048, "and its holes");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OK, "comes back");
	fd = open(at(FILE_NAME), O_RDONLY);
	must(stat(at(FILE_NAME), &st) == 0, "stat");
	ok(pread(fd, found, 6, size / 2) == 6 && strcmp(found, "middle") == 0 && st.st_size == size,
	   "with what is in the middle of it");
	close(fd);
	store_close(store);
}

static void
test_hard_link(void)
{
	FileStore  *store = fresh("hardlink", other);
	FileIdentity a;
	FileIdentity b;

	put_bytes(at(FILE_NAME), "sound", 5);
	must(link(at(FILE_NAME), at("b.mp3")) == 0, "link");
	a = know(store, FILE_NAME);
	b = know(store, "b.mp3");
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &a)), FILE_OK, "one of two links");
	ok(holds_text(at("b.mp3"), "sound") && holds_text(copy_at(FILE_NAME), "sound"), "the other stands");
	is(outcome_of(store_capture(store, RUN, "b.mp3", &b)), FILE_OK, "and goes, too");
	ok(holds_text(copy_at("b.mp3"), "sound"), "as a file of its own");
	store_close(store);
}

/*
 * Make each call fail in turn.  Going: the original is in its place, nothing
 * half done lies about, and the next capture succeeds.  Coming back likewise.
 */
static void
test_failures(void)
{
	FileStore  *store = fresh("failures", other);
	char	   *content = noise(COPY_CHUNK * 2);
	static const struct
	{
		const char *call;
		int			errnum;
		FileOutcome outcome;
	}			cases[] = {
		{"openat", ENOSPC, FILE_NO_SPACE}, {"openat", EIO, FILE_FAILED},
		{"ftruncate", EFBIG, FILE_FAILED},
		{"copy_file_range", ENOSPC, FILE_NO_SPACE}, {"copy_file_range", EDQUOT, FILE_NO_SPACE},
		{"pread", EIO, FILE_FAILED},
		{"fchmod", EIO, FILE_FAILED}, {"futimens", EIO, FILE_FAILED},
		{"fsync of file", EIO, FILE_FAILED}, {"fsync of file", ENOSPC, FILE_NO_SPACE},
		{"renameat2", EIO, FILE_FAILED}, {"renameat2", ENOSPC, FILE_NO_SPACE},
		{"mkdirat", ENOSPC, FILE_NO_SPACE}, {"mkdirat", EIO, FILE_FAILED},
		{"fsync of directory", EIO, FILE_FAILED},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		FileIdentity file;
		FileResult	result;

		put_bytes(at(FILE_NAME), content, COPY_CHUNK * 2);
		file = know(store, FILE_NAME);
		hook.call = cases[i].call;
		hook.errnum = cases[i].errnum;
		result = store_capture(store, RUN, FILE_NAME, &file);
		hook.call = NULL;
		is_outcome(result, cases[i].outcome, cases[i].errnum,
				   tap_text("%s: %s", cases[i].call, strerror(cases[i].errnum)));
		ok(holds(at(FILE_NAME), content, COPY_CHUNK * 2) && is_clean() &&
		   place_of(store, &file) == PLACE_UPLOAD, "... the file stays where it was, and nothing half done");
		(void) store_sync(store);
		is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "... and goes when all is well");

		hook.call = cases[i].call;
		hook.errnum = cases[i].errnum;
		result = store_put_back(store, RUN, FILE_NAME, &file);
		hook.call = NULL;
		if (strcmp(cases[i].call, "mkdirat") != 0)
			is_outcome(result, FILE_FAILED, cases[i].errnum, "... the same on its way back");
		(void) store_sync(store);
		if (strcmp(cases[i].call, "mkdirat") != 0)
			ok(holds(copy_at(FILE_NAME), content, COPY_CHUNK * 2) && is_clean(), "... the copy stays");
		ok(result.outcome == FILE_OK ||
		   outcome_of(store_put_back(store, RUN, FILE_NAME, &file)) == FILE_OK, "... and comes back");
		ok(holds(at(FILE_NAME), content, COPY_CHUNK * 2) && !there(copy_at(FILE_NAME)), "... whole");
		(void) store_sync(store);
		must(unlink(at(FILE_NAME)) == 0, "unlink");
		store_tidy(store, RUN);
	}

	/* calls whose failure only costs something */
	{
		static const char *const forgiven[] = {"ioctl", "fchown", "fsetxattr"};

		for (int i = 0; i < (int) lengthof(forgiven); i++)
		{
			FileIdentity file;

			put_bytes(at(FILE_NAME), content, COPY_CHUNK);
			file = know(store, FILE_NAME);
			hook.call = forgiven[i];
			hook.errnum = EPERM;
			is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK,
			   tap_text("%s may be refused", forgiven[i]));
			hook.call = NULL;
			must(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)) == FILE_OK, "put back");
		}
	}
	free(content);
	store_close(store);
}

/* A full disk of the uploads must not keep a file from leaving that disk. */
static void
test_full_upload_disk(void)
{
	FileStore  *store = fresh("full", other);
	FileIdentity file = put_and_know(store, FILE_NAME, "sound");

	/*
	 * the first calls make the directories of the trash, the sixth makes the
	 * passage
	 */
	hook.call = "mkdirat";
	hook.errnum = ENOSPC;
	hook.nth = 6;
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "no room for the passage");
	ok(hook.seen == 6 && !there(at(FILE_NAME)) && holds_text(copy_at(FILE_NAME), "sound"),
	   "it went all the same");
	store_close(store);

	store = fresh("readonly", other);
	file = put_and_know(store, FILE_NAME, "sound");
	hook.call = "unlinkat";
	hook.errnum = EIO;
	is_outcome(store_capture(store, RUN, FILE_NAME, &file), FILE_FAILED, EIO, "the unlink fails");
	hook.call = NULL;
	ok(holds_text(at(FILE_NAME), "sound") && is_clean(), "the file is in its place again");
	is(place_of(store, &file), PLACE_UPLOAD, "and located there");
	store_close(store);
}

static void
test_corruption(void)
{
	FileStore  *store = fresh("corruption", other);
	char	   *content = noise(COPY_CHUNK + 7);
	FileIdentity file;
	FileResult	result;

	put_bytes(at(FILE_NAME), content, COPY_CHUNK + 7);
	file = know(store, FILE_NAME);
	hook.corrupt = true;
	result = store_capture(store, RUN, FILE_NAME, &file);
	is_outcome(result, FILE_FAILED, EIO, "a flipped bit in the copy is found");
	ok(!hook.corrupt && strcmp(result.failure, "could not verify copy of file") == 0, "... and called by its name");
	ok(holds(at(FILE_NAME), content, COPY_CHUNK + 7) && !there(copy_at(FILE_NAME)) && is_clean(),
	   "the file stays, the copy does not");
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "again, without");
	hook.corrupt = true;
	is_outcome(store_put_back(store, RUN, FILE_NAME, &file), FILE_FAILED, EIO, "the same on the way back");
	ok(holds(copy_at(FILE_NAME), content, COPY_CHUNK + 7) && !there(at(FILE_NAME)) && is_clean(),
	   "the copy stays");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OK, "again, without");
	free(content);
	store_close(store);
}

static int	questions;

static bool
stop_at_third(void)
{
	return ++questions >= 3;
}

static bool
never_stop(void)
{
	questions++;
	return false;
}

static void
test_stop(void)
{
	FileStore  *store = fresh("stop", other);
	char	   *content = noise(5 * COPY_CHUNK);
	FileIdentity file;

	put_bytes(at(FILE_NAME), content, 5 * COPY_CHUNK);
	file = know(store, FILE_NAME);
	store_set_stop(store, stop_at_third);
	questions = 0;
	is_outcome(store_capture(store, RUN, FILE_NAME, &file), FILE_FAILED, EINTR, "stopped while copying");
	ok(holds(at(FILE_NAME), content, 5 * COPY_CHUNK) && is_clean() && !there(copy_at(FILE_NAME)),
	   "the file stays, and nothing else");
	store_set_stop(store, never_stop);
	questions = 0;
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "not stopped");
	ok(questions >= 10, "it was asked for every chunk, copied and compared");
	store_set_stop(store, stop_at_third);
	questions = 0;
	is_outcome(store_put_back(store, RUN, FILE_NAME, &file), FILE_FAILED, EINTR, "stopped on the way back");
	ok(holds(copy_at(FILE_NAME), content, 5 * COPY_CHUNK) && is_clean() && !there(at(FILE_NAME)), "the copy stays");
	store_set_stop(store, NULL);
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OK, "comes back");

	file = know(store, FILE_NAME);
	store_set_durable(store, false);
	is_outcome(store_capture(store, RUN, FILE_NAME, &file), FILE_FAILED, EXDEV, "nothing is copied in a hurry");
	ok(holds(at(FILE_NAME), content, 5 * COPY_CHUNK) && !there(copy_at(FILE_NAME)), "nothing at all");
	free(content);
	store_close(store);
}

/* Strikes of the owner. */

static void
write_into_it(void)
{
	int			fd = open(at(FILE_NAME), O_WRONLY | O_APPEND);

	must(fd >= 0 && write(fd, "more", 4) == 4, "write");
	close(fd);
}

/* Same size, and the time set back. */
static void
write_secretly(void)
{
	struct stat st;
	struct timespec times[2];
	int			fd = open(at(FILE_NAME), O_WRONLY);

	must(fd >= 0 && fstat(fd, &st) == 0 && write(fd, "S", 1) == 1, "write");
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	must(futimens(fd, times) == 0, "futimens");
	close(fd);
}

static void
replace_it(void)
{
	put_bytes(at("new"), "wanted", 6);
	must(rename(at("new"), at(FILE_NAME)) == 0, "rename");
}

static void
remove_it(void)
{
	must(unlink(at(FILE_NAME)) == 0, "unlink");
}

static void
replace_after_copy(void)
{
	/* the first rename is that of the copy, the second that of the original */
	hook.before_rename = replace_it;
}

static void
remove_after_copy(void)
{
	hook.before_rename = remove_it;
}

static void
make_a_link_of_it(void)
{
	must(unlink(at(FILE_NAME)) == 0 && symlink("/etc/passwd", at(FILE_NAME)) == 0, "symlink");
}

static void
link_after_copy(void)
{
	hook.before_rename = make_a_link_of_it;
}

static void
test_strikes(void)
{
	FileStore  *store = fresh("strikes", other);
	static const struct
	{
		const char *name;
		void		(*while_copying) (void);
		void		(*before_rename) (void);
		FileOutcome outcome;
		const char *content;	/* NULL: none */
	}			cases[] = {
		{"written to", write_into_it, NULL, FILE_REPLACED, "soundmore"},
		{"written to, the time set back", write_secretly, NULL, FILE_REPLACED, "Sound"},
		{"replaced while copied", replace_it, NULL, FILE_REPLACED, "wanted"},
		{"removed while copied", remove_it, NULL, FILE_REPLACED, NULL},
		{"replaced when the copy was made", NULL, replace_after_copy, FILE_REPLACED, "wanted"},
		{"removed when the copy was made", NULL, remove_after_copy, FILE_VANISHED, NULL},
		{"a symlink when the copy was made", NULL, link_after_copy, FILE_REPLACED, ""},
	};

	for (int i = 0; i < (int) lengthof(cases); i++)
	{
		FileIdentity file;
		FileResult	result;

		(void) unlink(at(FILE_NAME));
		file = put_and_know(store, FILE_NAME, "sound");
		let_time_pass(at(FILE_NAME));
		hook.before_copying = cases[i].while_copying;
		hook.before_rename = cases[i].before_rename;
		result = store_capture(store, RUN, FILE_NAME, &file);
		is_outcome(result, cases[i].outcome, 0, cases[i].name);
		if (cases[i].content == NULL)
			ok(!there(at(FILE_NAME)), "... as its owner wanted");
		else if (cases[i].content[0] != '\0')
			ok(holds_text(at(FILE_NAME), cases[i].content), "... what he has put there stays");
		else
			ok(there(at(FILE_NAME)), "... it is still there");
		ok(!there(copy_at(FILE_NAME)) && is_clean(), "... and no copy");
		memset(&hook, 0, sizeof(hook));
	}
	store_close(store);
}

/* Checks each function if both the original and the copy are there. */
static void
test_both(void)
{
	FileStore  *store = fresh("both", other);
	FileIdentity file = put_and_know(store, FILE_NAME, "sound");
	FileIdentity found;
	struct stat st;
	struct timespec times[2] = {{0}};

	/* the copy is finished, and the original is not yet removed */
	must(outcome_of(store_capture(store, RUN, FILE_NAME, &file)) == FILE_OK, "capture");
	must(link(copy_at(FILE_NAME), tap_text("%s/kept", backup)) == 0, "link");
	must(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)) == FILE_OK, "put back");
	file = know(store, FILE_NAME);
	must(rename(tap_text("%s/kept", backup), copy_at(FILE_NAME)) == 0, "rename");
	must(stat(copy_at(FILE_NAME), &st) == 0, "stat");
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	is(place_of(store, &file), PLACE_UPLOAD, "both: the original counts");
	memset(&hook, 0, sizeof(hook));
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "captured");
	is(hook.n_range, 0, "without being copied again");
	ok(!there(at(FILE_NAME)) && holds_text(copy_at(FILE_NAME), "sound"), "once");

	/* both are there, but the copy is bad */
	must(link(copy_at(FILE_NAME), tap_text("%s/kept", backup)) == 0, "link");
	must(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)) == FILE_OK, "put back");
	file = know(store, FILE_NAME);
	put_bytes(copy_at(FILE_NAME), "SOUND", 5);
	must(utimensat(AT_FDCWD, copy_at(FILE_NAME), times, 0) == 0, "utimensat");
	is(place_of(store, &file), PLACE_UPLOAD, "both, the copy bad");
	is(outcome_of(store_capture(store, RUN, FILE_NAME, &file)), FILE_OK, "captured");
	ok(!there(at(FILE_NAME)) && holds_text(copy_at(FILE_NAME), "sound"), "the copy was replaced");

	/* put back, the name taken */
	let_time_pass(copy_at(FILE_NAME));

	/*
	 * the spacer takes the free inode number: without birth times a file with
	 * that number would be the same file
	 */
	put_bytes(at("spacer"), "x", 1);
	put_bytes(at(FILE_NAME), "other", 5);
	must(unlink(at("spacer")) == 0, "unlink");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OCCUPIED, "its name is taken");
	must(utimensat(AT_FDCWD, at(FILE_NAME), times, 0) == 0, "utimensat");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OCCUPIED, "... by one of the same size and time");
	is(place_of(store, &file), PLACE_TRASH, "... it is in the trash");
	ok(holds_text(at(FILE_NAME), "other") && holds_text(copy_at(FILE_NAME), "sound"), "... both are kept");
	must(unlink(at(FILE_NAME)) == 0 && mkdir(at(FILE_NAME), 0755) == 0, "mkdir");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OCCUPIED, "... by a directory");
	must(rmdir(at(FILE_NAME)) == 0 && symlink("/etc/passwd", at(FILE_NAME)) == 0, "symlink");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OCCUPIED, "... by a symlink");
	must(unlink(at(FILE_NAME)) == 0, "unlink");
	put_bytes(at(FILE_NAME), "sound", 5);
	must(utimensat(AT_FDCWD, at(FILE_NAME), times, 0) == 0, "utimensat");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OK, "... by an earlier attempt to put it back");
	ok(holds_text(at(FILE_NAME), "sound") && !there(copy_at(FILE_NAME)), "... once");

	/* something in the trash that we did not put there */
	file = know(store, FILE_NAME);
	must(mkdir(tap_text("%s/" OWNER, backup), 0700) == 0 || errno == EEXIST, "mkdir");
	put_bytes(copy_at(FILE_NAME), "something else", 14);
	is_outcome(store_capture(store, RUN, FILE_NAME, &file), FILE_FAILED, EEXIST, "the trash has another file of that name");
	ok(holds_text(at(FILE_NAME), "sound") && holds_text(copy_at(FILE_NAME), "something else"), "neither is touched");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_REPLACED, "nor put back");
	must(unlink(copy_at(FILE_NAME)) == 0 && symlink("/etc/passwd", copy_at(FILE_NAME)) == 0, "symlink");
	is_outcome(store_capture(store, RUN, FILE_NAME, &file), FILE_FAILED, EEXIST, "a symlink in the trash");
	must(unlink(copy_at(FILE_NAME)) == 0, "unlink");
	must(chmod(tap_text("%s/" OWNER, backup), 0770) == 0, "chmod");
	store_close(store);
	store = open_store();
	is_outcome(store_capture(store, RUN, FILE_NAME, &file), FILE_FAILED, EPERM, "a folder that others may write to");
	must(chmod(tap_text("%s/" OWNER, backup), 0700) == 0, "chmod");
	must(rename(tap_text("%s/" OWNER, backup), tap_text("%s/moved", backup)) == 0 &&
		 symlink(tap_text("%s/moved", backup), tap_text("%s/" OWNER, backup)) == 0, "symlink");
	is_outcome(store_capture(store, RUN, FILE_NAME, &file), FILE_FAILED, EPERM, "a folder that is a symlink");
	found = know(store, FILE_NAME);
	ok(store_same_file(&file, &found, true), "the file was not touched");
	store_close(store);
}

/* Checks a crash with a stranger, or the file itself, in the passage. */
static void
test_passage(void)
{
	FileStore  *store = fresh("passage", other);
	FileIdentity file = put_and_know(store, FILE_NAME, "sound");
	static const char *const passage = ".audio_cleanup/trash/42/" FILE_NAME;

	must(mkdir(at(".audio_cleanup"), 0700) == 0 && mkdir(at(".audio_cleanup/trash"), 0700) == 0 &&
		 mkdir(at(".audio_cleanup/trash/42"), 0700) == 0 && mkdir(at(".audio_cleanup/trash/42/2024"), 0700) == 0 &&
		 mkdir(at(".audio_cleanup/trash/42/2024/05"), 0700) == 0, "mkdir");
	must(rename(at(FILE_NAME), at(passage)) == 0, "rename");
	is(place_of(store, &file), PLACE_UPLOAD, "in the passage, without a copy: it goes back");
	ok(holds_text(at(FILE_NAME), "sound"), "it did");
	must(rename(at(FILE_NAME), at(passage)) == 0, "rename");
	is(outcome_of(store_put_back(store, RUN, FILE_NAME, &file)), FILE_OK, "likewise when it is put back");
	ok(holds_text(at(FILE_NAME), "sound"), "it was");
	put_bytes(at(passage), "stranger", 8);
	must(unlink(at(FILE_NAME)) == 0, "unlink");
	is(place_of(store, &file), PLACE_OTHER, "a stranger in the passage");
	ok(holds_text(at(FILE_NAME), "stranger"), "is put back");

	file = know(store, FILE_NAME);
	must(outcome_of(store_capture(store, RUN, FILE_NAME, &file)) == FILE_OK, "capture");
	(void) store_sync(store);
	put_bytes(at(passage), "newer", 5);
	is(place_of(store, &file), PLACE_TRASH, "a stranger in the passage, and the copy");
	ok(holds_text(at(FILE_NAME), "newer") && holds_text(copy_at(FILE_NAME), "stranger"), "both are where they belong");
	store_close(store);
}


/* ----------
 * Killed at every system call
 * ----------
 */

static char *kill_content;
#define KILL_SIZE	(2 * COPY_CHUNK + 99)

static int
count_places(void)
{
	static const char *const spare[] = {".audio_cleanup/trash/42/" FILE_NAME};

	return holds(at(FILE_NAME), kill_content, KILL_SIZE) +
		holds(copy_at(FILE_NAME), kill_content, KILL_SIZE) +
		holds(at(spare[0]), kill_content, KILL_SIZE);
}

typedef FileResult (*Operation) (FileStore *store, const FileIdentity *file);

static FileResult
do_capture(FileStore *store, const FileIdentity *file)
{
	return store_capture(store, RUN, FILE_NAME, file);
}

static FileResult
do_put_back(FileStore *store, const FileIdentity *file)
{
	return store_put_back(store, RUN, FILE_NAME, file);
}

static FileResult
do_destroy(FileStore *store, const FileIdentity *file)
{
	int64		freed;

	return store_destroy(store, RUN, FILE_NAME, file, &freed);
}

/*
 * Runs the operation in a child that dies at the n-th boundary.  Returns false
 * if the child came to its end.
 */
static bool
kill_in(Operation operation, const FileIdentity *file, int n)
{
	pid_t		child = fork();
	int			status;

	must(child >= 0, "fork");
	if (child == 0)
	{
		FileStore  *store = open_store();

		hook.boundaries = 0;
		hook.die_at = n;
		(void) operation(store, file);
		(void) store_sync(store);
		_exit(7);
	}
	must(waitpid(child, &status, 0) == child && WIFEXITED(status), "waitpid");
	return WEXITSTATUS(status) == 0;
}

/* Begin a round: one file, in its place or captured. */
static FileIdentity
begin_round(bool captured)
{
	FileStore  *store = open_store();
	FileIdentity file;

	(void) unlink(copy_at(FILE_NAME));
	(void) unlink(at(FILE_NAME));
	(void) mkdir(at("2024"), 0755);
	(void) mkdir(at("2024/05"), 0755);
	put_bytes(at(FILE_NAME), kill_content, KILL_SIZE);
	file = know(store, FILE_NAME);
	if (captured)
		must(outcome_of(store_capture(store, RUN, FILE_NAME, &file)) == FILE_OK, "capture");
	else
		store_tidy(store, RUN);
	store_close(store);
	return file;
}

/*
 * Goes on as the drain does: captures a file that is in its place.  Returns
 * whether the file is in the trash in the end.
 */
static bool
finish_capture(const FileIdentity *file)
{
	FileStore  *store = open_store();
	FilePlace	place = place_of(store, file);
	bool		fine = place == PLACE_TRASH;

	if (place == PLACE_UPLOAD)
	{
		FileIdentity now = know(store, FILE_NAME);

		fine = store_same_file(&now, file, false) &&
			outcome_of(store_capture(store, RUN, FILE_NAME, &now)) == FILE_OK;
	}
	fine = fine && place_of(store, file) == PLACE_TRASH && store_sync(store) == 0;
	store_tidy(store, RUN);
	store_close(store);
	return fine && is_clean();
}

static bool
finish_put_back(const FileIdentity *file)
{
	FileStore  *store = open_store();
	FileOutcome outcome = store_put_back(store, RUN, FILE_NAME, file).outcome;

	store_tidy(store, RUN);
	store_close(store);

	/*
	 * vanished: the file was back already, and only the last step was missing
	 */
	return (outcome == FILE_OK || outcome == FILE_VANISHED) && is_clean() &&
		there(at(FILE_NAME));
}

/*
 * Kills the operation at each boundary: the file is never gone, and in the end
 * there is one.
 */
static void
kill_everywhere(const char *name, Operation operation, bool captured,
				bool (*finish) (const FileIdentity *file))
{
	int			n = 0;
	int			lost = 0;
	int			unfinished = 0;
	int			not_once = 0;

	for (;;)
	{
		FileIdentity file = begin_round(captured);
		bool		killed = kill_in(operation, &file, ++n);

		if (count_places() < 1)
			lost++;
		if (!finish(&file))
		{
			unfinished++;
			diag("%s: killed at %d, not finished", name, n);
		}
		if (count_places() != 1)
		{
			not_once++;
			diag("%s: killed at %d, there %d times", name, n, count_places());
		}
		if (!killed)
			break;
	}
	ok(n > 20, "%s: killed at %d boundaries", name, n - 1);
	is(lost, 0, "... the content was always there");
	is(unfinished, 0, "... what was begun could be finished");
	is(not_once, 0, "... and in the end it was there once");
}

static void
test_killed_destroy(void)
{
	int			wrong = 0;
	int			n = 0;

	for (;;)
	{
		FileIdentity file = begin_round(true);
		bool		killed = kill_in(do_destroy, &file, ++n);
		FileStore  *store = open_store();
		FilePlace	place = place_of(store, &file);

		if (place == PLACE_TRASH)
			(void) do_destroy(store, &file);
		else if (place != PLACE_NOWHERE)
			wrong++;
		wrong += count_places() != 0 || place_of(store, &file) != PLACE_NOWHERE;
		store_close(store);
		if (!killed)
			break;
	}
	is(wrong, 0, tap_text("destroy: killed at %d boundaries, then gone", n - 1));
}

static void
test_killed(void)
{
	FileStore  *store = fresh("killed", other);

	store_close(store);
	kill_content = noise(KILL_SIZE);
	kill_everywhere("capture", do_capture, false, finish_capture);
	kill_everywhere("capture, then put back", do_capture, false, finish_put_back);
	kill_everywhere("put back", do_put_back, true, finish_put_back);
	test_killed_destroy();
	free(kill_content);
}

static bool
find_other(void)
{
	struct stat here;
	struct stat there_;

	snprintf(other, sizeof(other), "/dev/shm/audio_cleanup.XXXXXX");
	if (mkdtemp(other) == NULL)
		return false;
	return stat(base, &here) == 0 && stat(other, &there_) == 0 && here.st_dev != there_.st_dev;
}

int
main(void)
{
	begin_scratch("audio_cleanup", 0755, 0);
	if (!find_other())
	{
		skip("another file system at /dev/shm is not permitted here");
		test_life("same", base, true);
	}
	else
	{
		test_life("same", base, true);
		test_life("other", other, false);
		test_refused();
		test_sizes();
		test_sparse();
		test_hard_link();
		test_failures();
		test_full_upload_disk();
		test_corruption();
		test_stop();
		test_strikes();
		test_both();
		test_passage();
		test_killed();
	}
	clean_up();
	return tap_end();
}
