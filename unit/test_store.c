/*-------------------------------------------------------------------------
 *
 * test_store.c
 *	  Tries to make the store lose, overwrite or misjudge a file.
 *
 * The system calls that matter are interposed.  A hook runs between two calls
 * of the code under test, at the moment when an untrusted owner of the
 * directory would strike.  A forced errno plays other file systems and full
 * disks.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>

#ifdef WITH_LIBURING
#include <liburing.h>
#endif

#include "src/store/claim_file.h"

#define SCRATCH
#include "common.h"

#define RUN		INT64CONST(42)
#define TRASH	".audio_cleanup/trash/42"


/* ----------
 * Interposed system calls
 * ----------
 */

static struct
{
	void		(*before_rename) (void);
	void		(*after_rename) (void);
	int			rename_errno;
	int			mkdir_errno;
	int			fsync_errno;
	int			statx_errno;
	int			link_errno;
	int			unlink_errno;
	bool		die_after_rename;
	int			ring_errno;		/* why there is no io_uring */
	bool		ring_breaks;	/* the ring takes no calls */
	bool		projects;		/* no file can be renamed or linked from one
								 * folder of the top into another */
	int			nfsync;
	int			nopenat;
	int			nstatx;
	bool		no_mount_ids;	/* as before Linux 5.8 */
	int			nunlink;
}			hook;

static bool
inject(int errnum)
{
	if (errnum == 0)
		return false;
	errno = errnum;
	return true;
}

/*
 * Sets `project` to the first folder below the upload directory: all files in
 * that folder belong to one project.
 */
static void
tell_project(int fd, char *project)
{
	char		path[2 * PATH_MAX];
	ssize_t		n = readlink(tap_text("/proc/self/fd/%d", fd), path, sizeof(path) - 1);
	size_t		len = strlen(top);

	path[n < 0 ? 0 : n] = '\0';
	project[0] = '\0';
	if (strncmp(path, top, len) == 0 && path[len] == '/')
		strlcpy(project, path + len + 1, strcspn(path + len + 1, "/") + 1);
}

static bool
crosses_projects(int fd, int new_fd)
{
	char		from[PATH_MAX];
	char		to[PATH_MAX];

	if (!hook.projects || fd == AT_FDCWD)
		return false;
	tell_project(fd, from);
	tell_project(new_fd, to);
	return strcmp(from, to) != 0;
}

int
renameat2(int fd, const char *old, int new_fd, const char *new,
		  unsigned int flags)
{
	int			rc;

	REAL(renameat2);

	run_hook(&hook.before_rename);
	if (inject(hook.rename_errno) || (crosses_projects(fd, new_fd) && inject(EXDEV)))
		return -1;
	rc = real(fd, old, new_fd, new, flags);
	if (rc == 0 && hook.die_after_rename)
		_exit(0);
	if (rc == 0)
		run_hook(&hook.after_rename);
	return rc;
}

int
mkdirat(int fd, const char *path, mode_t mode)
{
	REAL(mkdirat);

	return inject(hook.mkdir_errno) ? -1 : real(fd, path, mode);
}

int
fsync(int fd)
{
	REAL(fsync);

	hook.nfsync++;
	return inject(hook.fsync_errno) ? -1 : real(fd);
}

static bool mount_is_told;		/* by statx() */

int
statx(int fd, const char *path, int flags, unsigned int mask,
	  struct statx *buf)
{
	REAL(statx);

	hook.nstatx++;
	if (inject(hook.statx_errno) || real(fd, path, flags, mask, buf) != 0)
		return -1;
#ifdef STATX_MNT_ID
	mount_is_told = (buf->stx_mask & STATX_MNT_ID) != 0 && buf->stx_mnt_id != 0;
#endif
	return without_mount_id(buf, hook.no_mount_ids);
}

int
openat(int fd, const char *path, int flags,...)
{
	REAL(openat);

	/* without statx() the mount takes a descriptor */
	if ((flags & O_PATH) == 0 || mount_is_told)
		hook.nopenat++;
	return real(fd, path, flags, 0600);
}

int
linkat(int fd, const char *old, int new_fd, const char *new, int flags)
{
	REAL(linkat);

	if (inject(hook.link_errno) || (crosses_projects(fd, new_fd) && inject(EXDEV)))
		return -1;
	return real(fd, old, new_fd, new, flags);
}

int
unlinkat(int fd, const char *path, int flags)
{
	static int	(*real) (int, const char *, int);

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "unlinkat");
	hook.nunlink++;
	return inject(hook.unlink_errno) ? -1 : real(fd, path, flags);
}

#ifdef WITH_LIBURING
int
io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags)
{
	static int	(*real) (unsigned int, struct io_uring *, unsigned int);

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "io_uring_queue_init");
	return hook.ring_errno ? -hook.ring_errno : real(entries, ring, flags);
}

int
io_uring_submit(struct io_uring *ring)
{
	static int	(*real) (struct io_uring *);

	if (real == NULL)
		real = dlsym(RTLD_NEXT, "io_uring_submit");
	return hook.ring_breaks ? -EAGAIN : real(ring);
}
#endif


/* ----------
 * Fixtures
 * ----------
 */

static void
clean_up(void)
{
	memset(&hook, 0, sizeof(hook));
	remove_base();
}

static bool
there(const char *path)
{
	struct stat st;

	return lstat(at(path), &st) == 0;
}

static bool
holds(const char *path, const char *content)
{
	char		found[64] = "";
	FILE	   *file = fopen(at(path), "r");

	if (file == NULL)
		return false;
	if (fgets(found, sizeof(found), file) == NULL)
		found[0] = '\0';
	fclose(file);
	return strcmp(found, content) == 0;
}

/* Begin a case in a directory of its own. */
static FileStore *
fresh(const char *name)
{
	memset(&hook, 0, sizeof(hook));
	return open_fresh(name);
}

static FileIdentity
put_and_know(FileStore *store, const char *path, const char *content)
{
	put(path, content);
	return know(store, path);
}

static int
outcome_of(FileResult result)
{
	return result.outcome;
}


/* ----------
 * Cases
 * ----------
 */

static void
test_open(void)
{
	FileStore  *store = fresh("open");
	char		link[PATH_MAX + 16];
	int64		free_bytes = -1;
	int64		size_bytes = -1;

	is(store_check_writable(store), 0, "a directory of ours is writable");
	is(store_space(store, &free_bytes, &size_bytes), 0, "the space of its file system is known");
	ok(free_bytes >= 0 && free_bytes <= size_bytes, "and no more than all of it is free");
	store_close(store);
	store_close(NULL);

	ok(store_open(at("missing")) == NULL && errno == ENOENT, "missing: ENOENT");
	put("file", "x");
	ok(store_open(at("file")) == NULL && errno == ENOTDIR, "file: ENOTDIR");
	must(mkfifo(at("fifo"), 0600) == 0, "mkfifo");
	ok(store_open(at("fifo")) == NULL && errno == ENOTDIR, "fifo: ENOTDIR, at once");
	ok(store_open("relative") == NULL && errno == EINVAL, "relative: EINVAL");

	snprintf(link, sizeof(link), "%s-link", top);
	must(symlink(top, link) == 0, "symlink");
	store = store_open(link);
	ok(store != NULL, "a symlink to the upload directory is followed");
	store_close(store);
}

static void
test_life(void)
{
	FileStore  *store = fresh("life");
	FileIdentity file = put_and_know(store, "a.mp3", "sound");
	int64		freed = -1;
	int			errnum = -1;

	is(file.size, 5, "size is told");
	is(store_locate(store, RUN, "a.mp3", &file, true, &errnum), PLACE_UPLOAD,
	   "located at its place");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_OK, "captured");
	ok(!there("a.mp3") && holds(TRASH "/a.mp3", "sound"), "it is in the trash");
	is(store_locate(store, RUN, "a.mp3", &file, true, &errnum), PLACE_TRASH,
	   "located in the trash");
	is(errnum, 0, "locate leaves no errno");
	is(store_locate(store, 43, "a.mp3", &file, true, &errnum), PLACE_NOWHERE,
	   "not in another run's trash");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_VANISHED,
	   "captured again: vanished");
	let_time_pass(at(TRASH "/a.mp3"));
	is(outcome_of(store_put_back(store, RUN, "a.mp3", &file)), FILE_OK, "put back");
	ok(holds("a.mp3", "sound"), "it is at its place");
	is(outcome_of(store_put_back(store, RUN, "a.mp3", &file)), FILE_VANISHED,
	   "put back again: vanished");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_REPLACED,
	   "its ctime has changed, so it is not captured by the old identity");
	file = know(store, "a.mp3");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_OK, "captured anew");
	is(outcome_of(store_destroy(store, 43, "a.mp3", &file, &freed)), FILE_VANISHED,
	   "not destroyed for another run");
	is(outcome_of(store_destroy(store, RUN, "a.mp3", &file, &freed)), FILE_OK,
	   "destroyed");
	is(freed, 5, "its bytes are freed");
	is(outcome_of(store_destroy(store, RUN, "a.mp3", &file, &freed)), FILE_VANISHED,
	   "destroyed again: vanished");
	is(freed, 0, "which frees nothing");
	is(store_locate(store, RUN, "a.mp3", &file, true, &errnum), PLACE_NOWHERE,
	   "located nowhere");
	is(store_sync(store), 0, "sync");
	store_tidy(store, RUN);
	ok(!there(".audio_cleanup"), "tidied away");
	store_close(store);
}

/* Do kernel and sandbox let us unlink by io_uring? */
static bool
have_ring(void)
{
	bool		have = false;

#ifdef WITH_LIBURING
	struct io_uring_probe *probe = io_uring_get_probe();

	have = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_UNLINKAT);
	if (probe != NULL)
		io_uring_free_probe(probe);
#endif
	return have;
}

static void
store_destroy_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	store_destroy_end(store, store_destroy_begin(store, run_id, files, n));
}

/*
 * Destroys files of two folders, more than one group.  Among the files are
 * names that must not be unlinked, or that are missing.
 */
static void
destroy_many(const char *name, int ring_errno, bool ring_breaks)
{
	enum
	{
		N = 150, STRANGER = 3, MISSING = 4, FOLDER = 5, LINK = 6, BAD_PATH = 70, OTHER_LINK = 71, NO_FOLDER = N - 1
	};
	FileStore  *store = fresh(name);
	FileIdentity identity[N];
	StoreFile	doomed[N];
	char		path[N][32];
	int			good = 0;
	int			by_call;

	make("a");
	make("b");
	for (int i = 0; i < N; i++)
	{
		snprintf(path[i], sizeof(path[i]), "%s%03d.mp3", i < 50 ? "" : i < 100 ? "a/" : "b/", i);
		if (i == OTHER_LINK)
			must(link(at(TRASH "/006.mp3"), at(path[i])) == 0, "link");
		else
			put(path[i], "sound");
		identity[i] = know(store, path[i]);
		must(store_capture(store, RUN, path[i], &identity[i]).outcome == FILE_OK, path[i]);
		doomed[i] = (StoreFile)
		{
			.path = path[i],.expected = &identity[i]
		};
	}
	must(rename(at(TRASH "/003.mp3"), at("elsewhere")) == 0, "rename");
	put(TRASH "/003.mp3", "other");
	must(unlink(at(TRASH "/004.mp3")) == 0, "unlink");
	must(unlink(at(TRASH "/005.mp3")) == 0, "unlink");
	make(TRASH "/005.mp3");
	doomed[BAD_PATH].path = "a/..";
	doomed[NO_FOLDER].path = "c/1.mp3";

	hook.ring_errno = ring_errno;
	hook.ring_breaks = ring_breaks;
	hook.nunlink = 0;
	store_destroy_many(store, RUN, doomed, N);
	by_call = hook.nunlink;
	for (int i = 0; i < N; i++)
		good += doomed[i].result.outcome == FILE_OK && doomed[i].freed == (i == LINK ? 0 : 5) &&
			!there(tap_text(TRASH "/%s", path[i]));
	is(good, N - 5, tap_text("%s: all that are as they were go, and free what they had", name));
	ok(doomed[STRANGER].result.outcome == FILE_REPLACED && holds(TRASH "/003.mp3", "other"), "a stranger stays");
	ok(doomed[MISSING].result.outcome == FILE_VANISHED && doomed[MISSING].freed == 0, "a missing file is missing");
	ok(doomed[FOLDER].result.outcome == FILE_REPLACED && there(TRASH "/005.mp3"), "a folder stays");
	is_failure(doomed[BAD_PATH].result, EINVAL, "could not accept path", "a path that leads out is refused");
	ok(doomed[NO_FOLDER].result.outcome == FILE_VANISHED && there(TRASH "/b/149.mp3"), "without its folder, a file is missing");
	is(doomed[OTHER_LINK].freed, 5, "the last link frees the bytes");
	is(by_call, have_ring() && ring_errno == 0 && !ring_breaks ? 1 : N - 5, "by plain calls where there is no ring");
	is(store_sync(store), 0, "synced");
	store_close(store);
}

static void
test_destroy_many(void)
{
	FileStore  *store;
	FileIdentity identity[2];
	StoreFile	doomed[2];

	destroy_many("many", 0, false);
	destroy_many("many-forbidden", EPERM, false);
	destroy_many("many-refused", 0, true);

	store = fresh("many-errors");
	identity[0] = put_and_know(store, "a.mp3", "x");
	identity[1] = put_and_know(store, "b.mp3", "x");
	for (int i = 0; i < 2; i++)
	{
		doomed[i] = (StoreFile)
		{
			.path = i ? "b.mp3" : "a.mp3",.expected = &identity[i]
		};
		must(store_capture(store, RUN, doomed[i].path, &identity[i]).outcome == FILE_OK, "capture");
	}
	hook.ring_errno = ENOSYS;
	hook.unlink_errno = EIO;
	store_destroy_many(store, RUN, doomed, 2);
	is_failure(doomed[0].result, EIO, "could not remove file", "what cannot be unlinked says so");
	ok(doomed[1].result.errnum == EIO && doomed[1].freed == 0, "each for itself");
	hook.unlink_errno = 0;
	store_destroy_many(store, RUN, doomed, 2);
	ok(doomed[0].result.outcome == FILE_OK && doomed[1].result.outcome == FILE_OK, "and goes when it can");
	store_close(store);
}

/*
 * Destroys files of many folders in two portions that are under way at the
 * same time, as far as there is a ring.  `end`: in order; or what waits for
 * them before.
 */
static void
destroy_under_way(const char *end)
{
	enum
	{
		N = 300, FIRST = 130
	};
	FileStore  *store = fresh(tap_text("under-way-%s", end));
	FileIdentity identity[N];
	StoreFile	doomed[N];
	char		path[N][32];
	StoreUnlinks *first;
	StoreUnlinks *second;
	int			good = 0;

	for (int i = 0; i < N; i++)
	{
		snprintf(path[i], sizeof(path[i]), "f%03d/%03d.mp3", i / 2, i);
		if (i % 2 == 0)
			make(tap_text("f%03d", i / 2));
		identity[i] = put_and_know(store, path[i], "sound");
		must(store_capture(store, RUN, path[i], &identity[i]).outcome == FILE_OK, path[i]);
		doomed[i] = (StoreFile)
		{
			.path = path[i],.expected = &identity[i]
		};
	}
	first = store_destroy_begin(store, RUN, doomed, FIRST);
	second = store_destroy_begin(store, RUN, doomed + FIRST, N - FIRST);
	if (strcmp(end, "sync") == 0)
		is(store_sync(store), 0, "synced");
	else if (strcmp(end, "unlock") == 0)
		store_unlock(store);
	if (strcmp(end, "close") != 0)
	{
		for (int i = 0; i < N && strcmp(end, "order") != 0; i++)
			good += !there(tap_text(TRASH "/%s", path[i]));
		store_destroy_end(store, first);
		store_destroy_end(store, second);
		for (int i = 0; i < N; i++)
			good += doomed[i].result.outcome == FILE_OK && doomed[i].freed == 5;
		is(good, strcmp(end, "order") == 0 ? N : 2 * N, tap_text("%s: all are gone, and say so", end));
	}
	store_close(store);
	if (strcmp(end, "close") == 0)
	{
		pfree(first);
		pfree(second);
	}
	good = 0;
	for (int i = 0; i < N; i++)
		good += !there(tap_text(TRASH "/%s", path[i]));
	/* the calls that the kernel does not have yet are not made at a close */
	ok(good >= N - 2 * 64, tap_text("%s: no unlink is under way any more", end));
}

static void
test_under_way(void)
{
	destroy_under_way("order");
	destroy_under_way("sync");
	destroy_under_way("unlock");
	destroy_under_way("close");
}

static void
test_paths(void)
{
	FileStore  *store = fresh("paths");
	FileIdentity file = put_and_know(store, "a.mp3", "x");
	FileIdentity any;
	char		name[300];
	char		path[STORE_PATH_MAX + 10];
	static const char *const bad[] = {"", ".", "..", "../a.mp3", "/abs", "a//b",
		"a/", "./a.mp3", "a/./b", "a/..", "a/../a.mp3", "/", "//",
		".audio_cleanup", ".audio_cleanup/claim", ".audio_cleanup/trash/42/a.mp3"
	};
	static const char *const odd[] = {"new\nline.mp3", "-rf", "\xff\xfe.mp3", " ",
		"*", "...", "..mp3", "a\tb", "%s%n.mp3", ".hidden", "back\\slash"
	};

	for (int i = 0; i < (int) lengthof(bad); i++)
	{
		int			errnum;
		int64		freed;

		is_failure(store_identify(store, bad[i], false, &any), EINVAL, "could not accept path",
				   tap_text("path \"%s\" is refused", bad[i]));
		ok(store_capture(store, RUN, bad[i], &file).errnum == EINVAL &&
		   store_put_back(store, RUN, bad[i], &file).errnum == EINVAL &&
		   store_destroy(store, RUN, bad[i], &file, &freed).errnum == EINVAL &&
		   store_destroy_in_place(store, bad[i], &file, &freed).errnum == EINVAL &&
		   store_locate(store, RUN, bad[i], &file, true, &errnum) == PLACE_UNKNOWN &&
		   errnum == EINVAL, "... by every function");
	}

	memset(path, 'a', sizeof(path));
	for (int i = 100; i < (int) sizeof(path); i += 100)
		path[i] = '/';
	path[STORE_PATH_MAX] = '\0';
	is_failure(store_identify(store, path, false, &any), ENAMETOOLONG, NULL,
			   "a path of STORE_PATH_MAX bytes is too long");
	path[STORE_PATH_MAX - 1] = '\0';
	is(outcome_of(store_identify(store, path, false, &any)), FILE_VANISHED,
	   "one byte less is not");

	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	is_failure(store_identify(store, name, false, &any), ENAMETOOLONG, NULL,
			   "256 bytes are too long a name");
	name[255] = '\0';
	for (int i = 0; i <= (int) lengthof(odd); i++)
	{
		const char *it = i < (int) lengthof(odd) ? odd[i] : name;
		int64		freed;

		file = put_and_know(store, it, "odd");
		ok(store_capture(store, RUN, it, &file).outcome == FILE_OK && !there(it) &&
		   store_put_back(store, RUN, it, &file).outcome == FILE_OK &&
		   holds(it, "odd"), "odd name %d goes and comes back", i);
		file = know(store, it);
		ok(store_capture(store, RUN, it, &file).outcome == FILE_OK &&
		   store_destroy(store, RUN, it, &file, &freed).outcome == FILE_OK &&
		   !there(it), "... and dies");
	}
	store_close(store);
}

static void
test_nested(void)
{
	FileStore  *store = fresh("nested");
	FileIdentity a;
	FileIdentity b;
	FileIdentity c;
	struct stat st;

	must(chmod(top, 0775) == 0, "chmod");
	store_close(store);
	store = store_open(top);
	make("2024");
	make("2024/05");
	must(chmod(at("2024/05"), 0750) == 0, "chmod");
	make("2024/06");
	must(chmod(at("2024/05"), 0750) == 0, "chmod");
	a = put_and_know(store, "2024/05/a.mp3", "a");
	b = put_and_know(store, "2024/06/a.mp3", "b");
	c = put_and_know(store, "2024/a.mp3", "c");
	is(outcome_of(store_capture(store, RUN, "2024/05/a.mp3", &a)), FILE_OK, "nested");
	is(outcome_of(store_capture(store, RUN, "2024/06/a.mp3", &b)), FILE_OK, "beside");
	is(outcome_of(store_capture(store, RUN, "2024/a.mp3", &c)), FILE_OK, "above");
	ok(holds(TRASH "/2024/05/a.mp3", "a") && holds(TRASH "/2024/06/a.mp3", "b") &&
	   holds(TRASH "/2024/a.mp3", "c"), "the trash has the same shape");
	must(stat(at(TRASH "/2024/05"), &st) == 0, "stat");
	is(st.st_mode & 07777, 0700, "and is private");

	store_tidy(store, RUN);
	ok(holds(TRASH "/2024/05/a.mp3", "a"), "tidy removes no file");

	must(rmdir(at("2024/05")) == 0 && rmdir(at("2024/06")) == 0 &&
		 rmdir(at("2024")) == 0, "rmdir");
	umask(077);
	is(outcome_of(store_put_back(store, RUN, "2024/05/a.mp3", &a)), FILE_OK,
	   "put back where no directory is left");
	must(stat(at("2024/05"), &st) == 0, "stat");
	is(st.st_mode & 07777, 0750, "which is made with the mode that it had, umask or not");
	is(umask(022), 077, "the umask is kept");

	store_tidy(store, RUN);
	ok(!there(TRASH "/2024/05") && there(TRASH "/2024/06/a.mp3"),
	   "tidy removes what is empty, and only that");
	store_tidy(store, 4711);
	put(".audio_cleanup/claim", "mine");
	is(outcome_of(store_put_back_as(store, RUN, "2024/06/a.mp3", "2024/05/a.mp3", &b)), FILE_OCCUPIED,
	   "not over another");
	is(outcome_of(store_put_back_as(store, RUN, "2024/06/a.mp3", "../a.mp3", &b)), FILE_FAILED,
	   "nor out of the directory");
	is(outcome_of(store_put_back_as(store, RUN, "2024/06/a.mp3", "new/place/b.mp3", &b)), FILE_OK,
	   "under another name, in another place");
	ok(holds("new/place/b.mp3", "b"), "there it is");
	b = know(store, "new/place/b.mp3");
	is(outcome_of(store_capture(store, RUN, "new/place/b.mp3", &b)), FILE_OK, "captured there");
	is(outcome_of(store_put_back_as(store, RUN, "new/place/b.mp3", "2024/06/a.mp3", &b)), FILE_OK, "and back again");
	is(outcome_of(store_put_back(store, RUN, "2024/a.mp3", &c)), FILE_OK, "and the last");
	store_tidy(store, RUN);
	ok(!there(".audio_cleanup/trash") && there(".audio_cleanup/claim"),
	   "the claim stays, the trash goes");
	store_close(store);
}

static void
test_kinds(void)
{
	FileStore  *store = fresh("kinds");
	FileIdentity file = put_and_know(store, "target", "x");
	FileIdentity any;
	static const char *const kinds[] = {"dir.mp3", "link.mp3", "dangling.mp3",
		"fifo.mp3"
	};

	make("dir.mp3");
	must(symlink("target", at("link.mp3")) == 0, "symlink");
	must(symlink("nowhere", at("dangling.mp3")) == 0, "symlink");
	must(mkfifo(at("fifo.mp3"), 0600) == 0, "mkfifo");
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		int			errnum;
		int64		freed;

		ok(store_identify(store, kinds[i], false, &any).outcome == FILE_NOT_REGULAR &&
		   store_capture(store, RUN, kinds[i], &file).outcome == FILE_NOT_REGULAR &&
		   store_destroy_in_place(store, kinds[i], &file, &freed).outcome ==
		   FILE_NOT_REGULAR &&
		   store_locate(store, RUN, kinds[i], &file, true, &errnum) == PLACE_OTHER &&
		   there(kinds[i]), "%s is not touched", kinds[i]);
	}
	is(outcome_of(store_identify(store, "target/x", false, &any)), FILE_VANISHED,
	   "a file as directory: vanished");
	is(outcome_of(store_identify(store, "link.mp3/x", false, &any)), FILE_VANISHED,
	   "a symlink as directory: vanished");
	is(outcome_of(store_identify(store, "fifo.mp3/x", false, &any)), FILE_VANISHED,
	   "a fifo as directory: vanished, and nobody waits");
	is(outcome_of(store_identify(store, "no/such/x", false, &any)), FILE_VANISHED,
	   "no such directory: vanished");
	store_close(store);
}

static void
test_hard_link(void)
{
	FileStore  *store = fresh("hardlink");
	FileIdentity file;
	int64		freed = -1;

	put("a.mp3", "12345");
	must(link(at("a.mp3"), at("b.mp3")) == 0, "link");
	file = know(store, "a.mp3");
	is(file.nlink, 2, "two links");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_OK, "captured");
	is(outcome_of(store_destroy(store, RUN, "a.mp3", &file, &freed)), FILE_OK, "destroyed");
	is(freed, 0, "frees nothing");
	ok(holds("b.mp3", "12345"), "the other link stands");
	file = know(store, "b.mp3");
	is(outcome_of(store_destroy_in_place(store, "b.mp3", &file, &freed)), FILE_OK,
	   "destroyed in place");
	is(freed, 5, "frees all");
	store_close(store);
}

static void
test_replaced_before(void)
{
	FileStore  *store = fresh("replaced");
	FileIdentity file = put_and_know(store, "a.mp3", "old");
	int64		freed;
	int			errnum;

	put("a.mp3.new", "new");
	must(rename(at("a.mp3.new"), at("a.mp3")) == 0, "rename");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_REPLACED,
	   "another inode");
	is(outcome_of(store_destroy_in_place(store, "a.mp3", &file, &freed)),
	   FILE_REPLACED, "... not destroyed in place");
	is(store_locate(store, RUN, "a.mp3", &file, true, &errnum), PLACE_OTHER, "... located");
	ok(holds("a.mp3", "new") && !there(".audio_cleanup"), "nothing was touched");

	file = know(store, "a.mp3");
	let_time_pass(at("a.mp3"));
	put("a.mp3", "own");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_REPLACED,
	   "same inode and size, other content");
	file = know(store, "a.mp3");
	let_time_pass(at("a.mp3"));
	must(chmod(at("a.mp3"), 0600) == 0, "chmod");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_REPLACED,
	   "a change of mode, seen by ctime");
	file = know(store, "a.mp3");
	file.btime_ns = 0;
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_OK,
	   "an unknown birth time proves nothing");
	is(outcome_of(store_put_back(store, RUN, "a.mp3", &file)), FILE_OK, "... nor here");
	file = know(store, "a.mp3");
	file.btime_ns++;
	if (file.btime_ns > 1)
		is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_REPLACED,
		   "another birth time does");
	must(unlink(at("a.mp3")) == 0, "unlink");
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_VANISHED, "vanished");
	store_close(store);
}

/* Strikes of the owner between look and rename. */

static void
replace_file(void)
{
	put("new", "wanted");
	must(rename(at("new"), at("d/a.mp3")) == 0, "rename");
}

static void
replace_by_directory(void)
{
	must(unlink(at("d/a.mp3")) == 0, "unlink");
	make("d/a.mp3");
	put("d/a.mp3/inside", "wanted");
}

static void
replace_by_symlink(void)
{
	must(unlink(at("d/a.mp3")) == 0 &&
		 symlink("/etc/passwd", at("d/a.mp3")) == 0, "symlink");
}

static void
replace_by_fifo(void)
{
	must(unlink(at("d/a.mp3")) == 0 && mkfifo(at("d/a.mp3"), 0600) == 0, "fifo");
}

static void
append_to_file(void)
{
	FILE	   *file = fopen(at("d/a.mp3"), "a");

	fputs("more", file);
	fclose(file);
}

static void
remove_file(void)
{
	must(unlink(at("d/a.mp3")) == 0, "unlink");
}

/* After the rename: the name is taken while we hold the stranger. */
static void
take_name(void)
{
	put("d/a.mp3", "third");
}

static void
take_name_and_more(void)
{
	take_name();
	put("d/a.mp3.audio_cleanup-42", "fourth");
}

static void
remove_directory(void)
{
	must(rmdir(at("d")) == 0, "rmdir");
}

static void
swap_directory_for_symlink(void)
{
	must(rename(at("d"), at("moved")) == 0 &&
		 symlink("/etc", at("d")) == 0, "swap");
}

static FileResult
struck(FileStore *store, void (*strike) (void), void (*after) (void))
{
	FileIdentity file = put_and_know(store, "d/a.mp3", "old");

	hook.before_rename = strike;
	hook.after_rename = after;
	return store_capture(store, RUN, "d/a.mp3", &file);
}

static void
test_strikes(void)
{
	static const int without[] = {0, EINVAL};

	for (int i = 0; i < (int) lengthof(without); i++)
	{
		FileStore  *store = fresh(i == 0 ? "strikes" : "strikes-plain");
		FileIdentity file;
		FileResult	result;

		diag("renameat2() %s", i == 0 ? "works" : "says EINVAL");
		make("d");
		hook.rename_errno = without[i];
		is(outcome_of(struck(store, replace_file, NULL)), FILE_REPLACED,
		   "replaced in the last moment");
		ok(holds("d/a.mp3", "wanted") && !there(TRASH "/d/a.mp3"), "... is put back");
		is(outcome_of(struck(store, append_to_file, NULL)), FILE_REPLACED,
		   "written to in the last moment");
		ok(holds("d/a.mp3", "oldmore") && !there(TRASH "/d/a.mp3"), "... is put back");
		is(outcome_of(struck(store, replace_by_symlink, NULL)), FILE_REPLACED,
		   "a symlink in the last moment");
		ok(there("d/a.mp3") && !there(TRASH "/d/a.mp3"), "... is put back");
		must(unlink(at("d/a.mp3")) == 0, "unlink");
		is(outcome_of(struck(store, replace_by_fifo, NULL)), FILE_REPLACED,
		   "a fifo in the last moment");
		ok(there("d/a.mp3") && !there(TRASH "/d/a.mp3"), "... is put back");
		must(unlink(at("d/a.mp3")) == 0, "unlink");
		is(outcome_of(struck(store, replace_by_directory, NULL)), FILE_REPLACED,
		   "a directory in the last moment");
		ok(holds("d/a.mp3/inside", "wanted") && !there(TRASH "/d/a.mp3"),
		   "... is put back");
		must(unlink(at("d/a.mp3/inside")) == 0 && rmdir(at("d/a.mp3")) == 0, "rm");
		is(outcome_of(struck(store, remove_file, NULL)), FILE_VANISHED,
		   "vanished in the last moment");

		result = struck(store, swap_directory_for_symlink, NULL);
		is(result.outcome, FILE_OK, "its directory moved: still that very file");
		ok(holds(TRASH "/d/a.mp3", "old"), "... is in the trash");
		must(unlink(at(TRASH "/d/a.mp3")) == 0 && unlink(at("d")) == 0 &&
			 rename(at("moved"), at("d")) == 0, "rename");

		/* in the fall back the hook fires before the rename */
		if (i == 0)
		{
			is(outcome_of(struck(store, replace_file, take_name)), FILE_REPLACED,
			   "replaced, and its name taken again");
			ok(holds("d/a.mp3", "third") &&
			   holds("d/a.mp3.audio_cleanup-42", "wanted"),
			   "... is put back under another name");
			must(unlink(at("d/a.mp3.audio_cleanup-42")) == 0, "unlink");
			is(outcome_of(struck(store, replace_file, take_name_and_more)),
			   FILE_REPLACED, "the other name taken as well");
			ok(holds("d/a.mp3", "third") &&
			   holds("d/a.mp3.audio_cleanup-42", "fourth") &&
			   holds("d/a.mp3.audio_cleanup-42-2", "wanted"), "... and yet another");
			must(unlink(at("d/a.mp3.audio_cleanup-42")) == 0 &&
				 unlink(at("d/a.mp3.audio_cleanup-42-2")) == 0, "unlink");
			is(outcome_of(struck(store, replace_file, remove_directory)),
			   FILE_REPLACED, "its directory removed");
			ok(holds("d/a.mp3", "wanted"), "... is made again");
		}

		put(TRASH "/d/a.mp3", "leftover");
		file = put_and_know(store, "d/a.mp3", "new");
		is_failure(store_capture(store, RUN, "d/a.mp3", &file), EEXIST, "could not rename file",
				   "a leftover in the trash is not overwritten");
		ok(holds(TRASH "/d/a.mp3", "leftover") && there("d/a.mp3"), "... both stay");
		store_close(store);
	}
}

static const char *taken;

static void
take_longest_name(void)
{
	put(taken, "third");
}

static void
test_long_spare_name(void)
{
	FileStore  *store = fresh("spare");
	FileIdentity file;
	char		name[256];
	int			errnum;

	memset(name, 'n', 255);
	name[255] = '\0';
	file = put_and_know(store, name, "other");
	must(mkdir(at(".audio_cleanup"), 0700) == 0 &&
		 mkdir(at(".audio_cleanup/trash"), 0700) == 0 &&
		 mkdir(at(TRASH), 0700) == 0, "mkdir");
	must(rename(at(name), tap_text("%s/%s", at(TRASH), name)) == 0, "rename");
	file.inode++;

	hook.rename_errno = EEXIST;
	is(store_locate(store, RUN, name, &file, true, &errnum), PLACE_UNKNOWN,
	   "a stranger that finds no name at all stays in the trash");
	is(errnum, EEXIST, "... and is reported");
	hook.rename_errno = 0;

	taken = name;
	hook.before_rename = take_longest_name;
	is(store_locate(store, RUN, name, &file, true, &errnum), PLACE_OTHER,
	   "... until there is a free one");
	ok(holds(name, "third"), "its own was taken in the last moment");
	strcpy(name + 255 - strlen(".audio_cleanup-42"), ".audio_cleanup-42");
	ok(holds(name, "other"), "... and the other is cut to 255 bytes");
	store_close(store);
}

/* kill -9 between the rename and the verification */
static void
test_killed(void)
{
	FileStore  *store = fresh("killed");
	FileIdentity file;
	int			errnum;
	pid_t		child;

	make("d");
	file = put_and_know(store, "d/a.mp3", "old");
	child = fork();
	if (child == 0)
	{
		hook.before_rename = replace_file;
		hook.die_after_rename = true;
		(void) store_capture(store, RUN, "d/a.mp3", &file);
		_exit(1);
	}
	waitpid(child, NULL, 0);
	ok(holds(TRASH "/d/a.mp3", "wanted") && !there("d/a.mp3"),
	   "killed with a stranger in its hands");
	is(store_locate(store, RUN, "d/a.mp3", &file, true, &errnum), PLACE_OTHER,
	   "locate tells that it was replaced");
	ok(holds("d/a.mp3", "wanted"), "... and puts the stranger back");
	store_close(store);
}

static void
test_put_back_taken(void)
{
	FileStore  *store = fresh("taken");
	FileIdentity file;
	int64		freed;

	make("d");
	file = put_and_know(store, "d/a.mp3", "old");
	is(outcome_of(store_capture(store, RUN, "d/a.mp3", &file)), FILE_OK, "captured");
	put("d/a.mp3", "new");
	is(outcome_of(store_put_back(store, RUN, "d/a.mp3", &file)), FILE_OCCUPIED,
	   "its name is taken");
	hook.rename_errno = EINVAL;
	is(outcome_of(store_put_back(store, RUN, "d/a.mp3", &file)), FILE_OCCUPIED,
	   "... without renameat2() too");
	hook.rename_errno = 0;
	ok(holds("d/a.mp3", "new") && holds(TRASH "/d/a.mp3", "old"), "both stay");
	must(unlink(at("d/a.mp3")) == 0 && rmdir(at("d")) == 0, "rm");
	put("d", "a file");
	store_sync(store);
	is(outcome_of(store_put_back(store, RUN, "d/a.mp3", &file)), FILE_OCCUPIED,
	   "its directory's name is taken");
	must(unlink(at("d")) == 0 && symlink("/tmp", at("d")) == 0, "symlink");
	is(outcome_of(store_put_back(store, RUN, "d/a.mp3", &file)), FILE_OCCUPIED,
	   "... by a symlink");
	must(unlink(at("d")) == 0, "unlink");
	put(TRASH "/d/b.mp3", "tampered");
	is(outcome_of(store_put_back(store, RUN, "d/b.mp3", &file)), FILE_REPLACED,
	   "what is not expected is not put back");
	is(outcome_of(store_destroy(store, RUN, "d/b.mp3", &file, &freed)), FILE_REPLACED,
	   "... nor destroyed");
	must(mkdir(at(TRASH "/d/c.mp3"), 0700) == 0, "mkdir");
	is(outcome_of(store_put_back(store, RUN, "d/c.mp3", &file)), FILE_REPLACED,
	   "a directory in the trash: not put back");
	is(outcome_of(store_destroy(store, RUN, "d/c.mp3", &file, &freed)), FILE_REPLACED,
	   "... nor destroyed");

	hook.rename_errno = EINVAL;
	hook.link_errno = EPERM;
	is_failure(store_put_back(store, RUN, "d/a.mp3", &file), EPERM, "could not rename file",
			   "a file system without links: it fails");
	hook.link_errno = 0;
	hook.unlink_errno = EIO;
	is_failure(store_put_back(store, RUN, "d/a.mp3", &file), EIO, "could not rename file",
			   "linked, but not unlinked: it fails");
	ok(there("d/a.mp3") && there(TRASH "/d/a.mp3"), "... and is in both places");
	hook.unlink_errno = 0;
	is(outcome_of(store_put_back(store, RUN, "d/a.mp3", &file)), FILE_OK,
	   "the next time it is finished");
	ok(holds("d/a.mp3", "old") && !there(TRASH "/d/a.mp3"), "... and is in one");
	store_close(store);
}

/* A directory that the store holds open is removed. */
static void
test_stale(void)
{
	FileStore  *store = fresh("stale");
	FileIdentity a;
	FileIdentity b;

	make("d");
	a = put_and_know(store, "d/a.mp3", "a");
	b = put_and_know(store, "d/b.mp3", "b");
	is(outcome_of(store_capture(store, RUN, "d/a.mp3", &a)), FILE_OK, "captured");
	must(unlink(at(TRASH "/d/a.mp3")) == 0 && rmdir(at(TRASH "/d")) == 0 &&
		 rmdir(at(TRASH)) == 0 && rmdir(at(".audio_cleanup/trash")) == 0, "rm");
	is(outcome_of(store_capture(store, RUN, "d/b.mp3", &b)), FILE_OK,
	   "captured, although the trash was tidied meanwhile");
	must(rmdir(at("d")) == 0, "rmdir");
	is(outcome_of(store_put_back(store, RUN, "d/b.mp3", &b)), FILE_OK,
	   "put back, although its directory was removed meanwhile");
	ok(holds("d/b.mp3", "b"), "... and it is there");
	store_close(store);
}

static void
test_swapped_parent(void)
{
	FileStore  *store = fresh("swapped");
	FileIdentity a;
	FileIdentity b;
	int64		freed;

	make("d");
	a = put_and_know(store, "d/a.mp3", "a");
	b = put_and_know(store, "d/b.mp3", "b");
	store_sync(store);
	must(rename(at("d"), at("elsewhere")) == 0 &&
		 symlink("elsewhere", at("d")) == 0, "swap");
	is(outcome_of(store_capture(store, RUN, "d/a.mp3", &a)), FILE_VANISHED,
	   "behind a symlink: not captured");
	is(outcome_of(store_destroy_in_place(store, "d/a.mp3", &a, &freed)),
	   FILE_VANISHED, "... nor destroyed");
	ok(there("elsewhere/a.mp3"), "... it is where it was");
	must(unlink(at("d")) == 0, "unlink");
	make("d");
	put("d/b.mp3", "wanted");
	is(outcome_of(store_capture(store, RUN, "d/b.mp3", &b)), FILE_REPLACED,
	   "another directory of that name: replaced");
	ok(holds("d/b.mp3", "wanted"), "... it is where it was");
	store_close(store);
}

static void
refuses(FileStore *store, const FileIdentity *file, const char *text)
{
	int64		freed;
	int			errnum = 0;

	is_failure(store_capture(store, RUN, "a.mp3", file), EPERM, "could not trust directory",
			   text);
	is_failure(store_put_back(store, RUN, "a.mp3", file), EPERM, "could not trust directory",
			   "... put back");
	is_failure(store_destroy(store, RUN, "a.mp3", file, &freed), EPERM,
			   "could not trust directory", "... destroy");
	ok(store_locate(store, RUN, "a.mp3", file, true, &errnum) == PLACE_UNKNOWN &&
	   errnum == EPERM, "... locate");
	store_tidy(store, RUN);
	ok(holds("a.mp3", "a"), "... the file is where it was");
	store_sync(store);
}

static void
test_hostile_trash(void)
{
	static const char *const dirs[] = {".audio_cleanup", ".audio_cleanup/trash", TRASH};

	for (int i = 0; i < (int) lengthof(dirs); i++)
	{
		FileStore  *store = fresh(tap_text("hostile-%d", i));
		FileIdentity file = put_and_know(store, "a.mp3", "a");

		for (int j = 0; j < i; j++)
			must(mkdir(at(dirs[j]), 0700) == 0, "mkdir");

		make("victim");
		must(symlink(at("victim"), at(dirs[i])) == 0, "symlink");
		refuses(store, &file, tap_text("%s is a symlink", dirs[i]));
		must(unlink(at(dirs[i])) == 0, "unlink");
		put(dirs[i], "x");
		refuses(store, &file, tap_text("%s is a file", dirs[i]));
		must(unlink(at(dirs[i])) == 0, "unlink");
		must(mkfifo(at(dirs[i]), 0600) == 0, "mkfifo");
		refuses(store, &file, tap_text("%s is a fifo", dirs[i]));
		must(unlink(at(dirs[i])) == 0, "unlink");

		make(dirs[i]);
		must(mkdir(at(tap_text("%s/x", dirs[i])), 0700) == 0, "mkdir");
		must(chmod(at(dirs[i]), 0777) == 0, "chmod");
		refuses(store, &file, tap_text("%s is writable for the world", dirs[i]));
		must(chmod(at(dirs[i]), 0770) == 0, "chmod");
		refuses(store, &file, tap_text("%s is writable for the group", dirs[i]));
		must(chmod(at(dirs[i]), 0700) == 0, "chmod");
		if (geteuid() == 0)
		{
			must(chown(at(dirs[i]), 65534, 65534) == 0, "chown");
			refuses(store, &file, tap_text("%s belongs to another user", dirs[i]));
			must(chown(at(dirs[i]), 0, 0) == 0, "chown");
		}
		else
			skip("another owner takes root");
		is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_OK,
		   "... when all is well it is captured");
		store_close(store);
	}
}

static void
test_no_space(void)
{
	FileStore  *store = fresh("space");
	FileIdentity file = put_and_know(store, "a.mp3", "12345");
	int64		freed = -1;

	hook.mkdir_errno = ENOSPC;
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_NO_SPACE,
	   "no room for a directory");
	hook.mkdir_errno = 0;
	hook.rename_errno = EDQUOT;
	is(outcome_of(store_capture(store, RUN, "a.mp3", &file)), FILE_NO_SPACE,
	   "no quota for a name");
	is(store_capture(store, RUN, "a.mp3", &file).errnum, EDQUOT, "... says why");
	hook.rename_errno = EROFS;
	is_failure(store_capture(store, RUN, "a.mp3", &file), EROFS, "could not rename file",
			   "read-only is no matter of space");
	hook.rename_errno = 0;
	ok(there("a.mp3"), "the file is where it was");
	hook.unlink_errno = EIO;
	is_failure(store_destroy_in_place(store, "a.mp3", &file, &freed), EIO,
			   "could not remove file", "an unlink that fails");
	hook.unlink_errno = 0;
	is(freed, 0, "... frees nothing");
	is(outcome_of(store_destroy_in_place(store, "a.mp3", &file, &freed)), FILE_OK,
	   "destroyed in place");
	is(freed, 5, "... frees its bytes");
	is(outcome_of(store_destroy_in_place(store, "a.mp3", &file, &freed)),
	   FILE_VANISHED, "... once");
	store_close(store);
}

/* Captures a file that cannot be renamed into the trash. */
static FileResult
capture_by_copy(FileStore *store, const char *path, const FileIdentity *expected)
{
	StoreFile	file = {.path = path,.expected = expected};

	store_capture_many(store, RUN, &file, 1, false);
	return file.result;
}

/* Checks a file system whose folders belong to projects of their own. */
static void
test_projects(void)
{
	FileStore  *store = fresh("projects");
	FileIdentity file;
	FileIdentity other;
	FileResult	result;
	int64		freed;
	int			errnum;

	make("p");
	make("q");
	file = put_and_know(store, "p/a.mp3", "sound");
	must(chmod(at("p/a.mp3"), 0640) == 0, "chmod");
	file = know(store, "p/a.mp3");
	hook.projects = true;
	result = store_capture(store, RUN, "p/a.mp3", &file);
	ok(result.outcome == FILE_NO_SPACE && result.errnum == EXDEV, "EXDEV is as if there was no space");
	ok(holds("p/a.mp3", "sound"), "... and the file stays where it was");

	is(outcome_of(capture_by_copy(store, "p/a.mp3", &file)), FILE_OK, "captured by a copy");
	ok(!there("p/a.mp3") && holds(TRASH "/p/a.mp3", "sound"), "... it is in the trash");
	file.captured = true;
	is(store_locate(store, RUN, "p/a.mp3", &file, true, &errnum), PLACE_TRASH, "... and known again");
	is(outcome_of(store_put_back(store, RUN, "p/a.mp3", &file)), FILE_OK, "put back");
	ok(holds("p/a.mp3", "sound") && !there(TRASH "/p/a.mp3"), "... by a copy in its folder");
	other = know(store, "p/a.mp3");
	ok(store_same_copy(&other, &file), "... with its time");

	is(outcome_of(capture_by_copy(store, "p/a.mp3", &other)), FILE_OK, "captured again");
	other.captured = true;
	is(outcome_of(store_put_back_as(store, RUN, "p/a.mp3", "q/b.mp3", &other)), FILE_OK,
	   "put back into a third project");
	ok(holds("q/b.mp3", "sound") && !there(TRASH "/p/a.mp3"), "... where it is whole");

	other = know(store, "q/b.mp3");
	store_set_durable(store, false);
	is_failure(capture_by_copy(store, "q/b.mp3", &other), EXDEV, NULL,
			   "not while somebody waits for a commit");
	store_set_durable(store, true);

	/* killed with the copy complete, and the original there */
	is(outcome_of(capture_by_copy(store, "q/b.mp3", &other)), FILE_OK, "captured once more");
	must(system(tap_text("cp -p '%s' '%s'", at(TRASH "/q/b.mp3"), at("q/b.mp3"))) == 0, "cp");
	other = know(store, "q/b.mp3");
	is(store_locate(store, RUN, "q/b.mp3", &other, true, &errnum), PLACE_UPLOAD, "the original counts");
	is(outcome_of(capture_by_copy(store, "q/b.mp3", &other)), FILE_OK, "... and the copy is used");
	ok(!there("q/b.mp3") && holds(TRASH "/q/b.mp3", "sound"), "... and there is one file");

	/*
	 * killed before the capture was recorded: the row is pending, the copy
	 * has another inode
	 */
	is(store_locate(store, RUN, "q/b.mp3", &other, false, &errnum), PLACE_UNFINISHED,
	   "nothing is done about it before a commit");
	ok(!there("q/b.mp3") && holds(TRASH "/q/b.mp3", "sound"), "... really");
	is(store_locate(store, RUN, "q/b.mp3", &other, true, &errnum), PLACE_OTHER, "put back after it");
	ok(holds("q/b.mp3", "sound") && !there(TRASH "/q/b.mp3"), "... by a copy");

	other = know(store, "q/b.mp3");
	is(outcome_of(store_destroy_in_place(store, "q/b.mp3", &other, &freed)), FILE_OK,
	   "without a backup it is destroyed in its place");
	is(freed, 5, "... and counted");
	store_tidy(store, RUN);
	ok(!there(".audio_cleanup"), "nothing is left");
	store_close(store);
}

/* Checks the trash of a disk that was copied. */
static void
test_copied_trash(void)
{
	FileStore  *store = fresh("copied_trash");
	FileIdentity file = put_and_know(store, "a.mp3", "sound");
	FileIdentity known;
	struct timespec times[2];
	int64		freed;
	int			errnum;

	must(store_capture(store, RUN, "a.mp3", &file).outcome == FILE_OK, "capture");
	must(system(tap_text("cd '%s' && cp -a .audio_cleanup copy && rm -r .audio_cleanup && mv copy .audio_cleanup",
						 top)) == 0, "cp -a");
	known = file;
	known.captured = true;
	store_sync(store);
	is(store_locate(store, RUN, "a.mp3", &file, false, &errnum), PLACE_UNFINISHED,
	   "for who does not know that it was verified, it is a stranger");
	is(store_locate(store, RUN, "a.mp3", &known, true, &errnum), PLACE_TRASH, "else it is the backup");

	times[0].tv_nsec = UTIME_OMIT;
	times[1].tv_sec = file.mtime_ns / INT64CONST(1000000000);
	times[1].tv_nsec = 0;
	must(utimensat(AT_FDCWD, at(TRASH "/a.mp3"), times, 0) == 0, "utimensat");
	is(store_locate(store, RUN, "a.mp3", &known, true, &errnum), PLACE_TRASH, "by whole seconds, too");
	is(outcome_of(store_put_back(store, RUN, "a.mp3", &known)), FILE_OK, "it is put back");
	ok(holds("a.mp3", "sound"), "... as it was");
	is(store_locate(store, RUN, "a.mp3", &known, true, &errnum), PLACE_OTHER,
	   "beyond the trash anybody can make a file of that size and time");

	/*
	 * for a capture, size and mtime are not enough, also if `captured` is set
	 */
	is(outcome_of(store_capture(store, RUN, "a.mp3", &known)), FILE_REPLACED, "a capture wants the inode");
	file = know(store, "a.mp3");
	must(store_capture(store, RUN, "a.mp3", &file).outcome == FILE_OK, "capture");
	must(system(tap_text("cd '%s' && cp -a .audio_cleanup copy && rm -r .audio_cleanup && mv copy .audio_cleanup",
						 top)) == 0, "cp -a");
	store_sync(store);
	file.captured = true;
	put("a.mp3", "sound");
	is(outcome_of(store_put_back(store, RUN, "a.mp3", &file)), FILE_OCCUPIED,
	   "a name that is taken by a file as large stays taken");
	ok(holds(TRASH "/a.mp3", "sound"), "... and the backup stays");
	is(outcome_of(store_destroy(store, RUN, "a.mp3", &file, &freed)), FILE_OK, "it is destroyed");
	ok(freed == 5 && !there(TRASH "/a.mp3") && there("a.mp3"), "... and not the other");
	store_close(store);
}

/* Checks figures that do not fit. */
static void
test_figures(void)
{
	FileStore  *store = fresh("figures");
	FileIdentity file;
	const int64 dates[] = {INT64CONST(20000000000), -INT64CONST(20000000000)};
	struct timespec times[2] = {{0, UTIME_OMIT}};
	struct stat dated;

	put("sparse.mp3", "x");
	must(truncate(at("sparse.mp3"), INT64CONST(1) << 40) == 0 ||
		 truncate(at("sparse.mp3"), INT64CONST(1) << 33) == 0, "truncate");
	file = know(store, "sparse.mp3");
	ok(file.space < 1024 * 1024 && file.size >= INT64CONST(1) << 33, "a sparse file frees what it takes");
	is(store_space_of(&file), file.space, "... all of it");
	must(link(at("sparse.mp3"), at("second.mp3")) == 0, "link");
	file = know(store, "sparse.mp3");
	is(store_space_of(&file), 0, "... with its last name");

	put("future.mp3", "x");

	/*
	 * The kernel replaces a date that a file system cannot store with the
	 * nearest possible date; so stat() tells the expected date.
	 */
	for (int i = 0; i < lengthof(dates); i++)
	{
		int64		seconds;

		times[1].tv_sec = (time_t) dates[i];
		must(utimensat(AT_FDCWD, at("future.mp3"), times, 0) == 0, "utimensat");
		must(stat(at("future.mp3"), &dated) == 0, "stat");
		seconds = dated.st_mtim.tv_sec;
		file = know(store, "future.mp3");
		if (seconds > PG_INT64_MAX / INT64CONST(1000000000))
			ok(file.mtime_ns > INT64CONST(4000000000) * 1000000000, "a date far in the future is in the future");
		else if (seconds < PG_INT64_MIN / INT64CONST(1000000000))
			ok(file.mtime_ns < -INT64CONST(4000000000) * 1000000000, "a date far in the past is in the past");
		else
			is(file.mtime_ns, seconds * INT64CONST(1000000000) + dated.st_mtim.tv_nsec, "a date is what the file system keeps of it");
	}
	store_close(store);
}

static void
test_folders(void)
{
	FileStore  *store = fresh("folders");
	FileIdentity file;

	make("a");
	make("a/b");
	make("a/b/c");
	make("a/.hidden");
	must(symlink("a", at("s")) == 0, "symlink");
	file = put_and_know(store, "a/b/c/x.mp3", "sound");
	is(store_remove_folders(store, "a/b/c"), 0, "a folder with a file stays");
	must(store_capture(store, RUN, "a/b/c/x.mp3", &file).outcome == FILE_OK, "capture");
	is(store_remove_folders(store, "s/b/c"), 0, "symlinks are not followed");
	is(store_remove_folders(store, "a/b/c"), 2, "empty ones go, with those above that are empty then");
	ok(there("a/.hidden") && !there("a/b"), "... and no more");
	is(store_remove_folders(store, "a/.hidden"), 0, "hidden ones are not ours");
	is(store_remove_folders(store, ".audio_cleanup"), 0, "nor is our own one emptied by it");
	is(store_remove_folders(store, "../folders"), 0, "nothing beyond the directory");
	is(store_remove_folders(store, ""), 0, "nor itself");
	is(store_remove_folders(store, "missing/one"), 0, "nor what is not there");
	is(outcome_of(store_put_back(store, RUN, "a/b/c/x.mp3", &file)), FILE_OK, "a file brings its folders back");
	ok(holds("a/b/c/x.mp3", "sound"), "... all of them");
	is(store_check_folder(store, "a/b/c/x.mp3"), 0, "what may be removed");
	is(store_check_folder(store, "missing/x.mp3"), 0, "a folder that has gone is no failure");
	if (geteuid() == 0)
	{
		make("sticky");
		put("sticky/x.mp3", "x");
		put("sticky/own.mp3", "x");
		must(chown(at("sticky"), 65534, 65534) == 0 && chown(at("sticky/x.mp3"), 65534, 65534) == 0, "chown");
		is(store_check_folder(store, "sticky/x.mp3"), 0, "another user's file may be removed");
		is(store_check_folder(store, "a/b/c/x.mp3"), 0, "... of an open folder");
		must(chmod(at("sticky"), 01777) == 0, "chmod");
		is(store_check_folder(store, "sticky/x.mp3"), EPERM, "... but not of a sticky one");
		is(store_check_folder(store, "sticky/own.mp3"), 0, "... where an own file may be removed");
		is(store_check_folder(store, "sticky/gone.mp3"), 0, "... and a file that has gone is no failure");
	}
	else
		skip("another owner takes root");
	store_close(store);
}

static void
test_old_kernel(void)
{
	static const int errnums[] = {ENOSYS, EPERM, EINVAL, EOPNOTSUPP};

	for (int i = 0; i < (int) lengthof(errnums); i++)
	{
		FileStore  *store = fresh(tap_text("old-%d", i));
		FileIdentity file;
		FileIdentity plain;
		int64		freed;

		make("d");
		file = put_and_know(store, "d/a.mp3", "x");
		hook.statx_errno = errnums[i];
		hook.rename_errno = ENOSYS;
		plain = know(store, "d/a.mp3");
		is(plain.btime_ns, 0, "without statx() there is no birth time");
		ok(store_same_file(&file, &plain, true), "... but the same file");
		ok(store_capture(store, RUN, "d/a.mp3", &file).outcome == FILE_OK &&
		   store_put_back(store, RUN, "d/a.mp3", &plain).outcome == FILE_OK,
		   "... goes and comes back");
		plain = know(store, "d/a.mp3");
		ok(store_capture(store, RUN, "d/a.mp3", &plain).outcome == FILE_OK &&
		   store_destroy(store, RUN, "d/a.mp3", &file, &freed).outcome == FILE_OK,
		   "... and dies");
		store_close(store);
	}
}

/* A stat() that fails after the rename must not keep the file. */
static void
break_stat(void)
{
	hook.statx_errno = EIO;
}

static void
test_unverifiable(void)
{
	FileStore  *store = fresh("unverifiable");
	FileIdentity file = put_and_know(store, "a.mp3", "x");
	int			errnum;

	hook.after_rename = break_stat;
	is_failure(store_capture(store, RUN, "a.mp3", &file), EIO, "could not stat file",
			   "what cannot be verified");
	ok(there("a.mp3") && !there(TRASH "/a.mp3"), "... is put back");
	is_failure(store_capture(store, RUN, "a.mp3", &file), EIO, "could not stat file",
			   "what cannot be looked at is not captured");
	ok(store_locate(store, RUN, "a.mp3", &file, true, &errnum) == PLACE_UNKNOWN &&
	   errnum == EIO, "... nor located");
	store_close(store);
}

static void
test_sync(void)
{
	FileStore  *store = fresh("sync");
	FileIdentity a;
	FileIdentity b;
	int64		freed;
	int			errnum;

	hook.ring_errno = ENOSYS;	/* so that fsyncs are counted */
	make("d");
	make("d/e");
	a = put_and_know(store, "a.mp3", "a");
	b = put_and_know(store, "d/e/b.mp3", "b");
	is(store_sync(store), 0, "nothing to sync");
	is(hook.nfsync, 0, "... nothing synced");

	store_set_durable(store, false);
	is(outcome_of(store_capture(store, RUN, "a.mp3", &a)), FILE_OK, "not durable");
	is(outcome_of(store_capture(store, RUN, "d/e/b.mp3", &b)), FILE_OK, "... nested");
	is(store_sync(store), 0, "... sync");
	is(hook.nfsync, 0, "... owes no fsync");

	store_set_durable(store, true);
	is(store_locate(store, RUN, "a.mp3", &a, true, &errnum), PLACE_TRASH, "located");
	store_sync(store);

	/* the run's trash, the trash, the private directory, the top */
	is(hook.nfsync, 4, "... all that it relies on is synced");
	hook.nfsync = 0;
	is(store_locate(store, RUN, "d/e/b.mp3", &b, true, &errnum), PLACE_TRASH, "located");
	store_sync(store);

	/* two more */
	is(hook.nfsync, 6, "... down to its directory");
	hook.nfsync = 0;
	store_sync(store);
	is(hook.nfsync, 0, "... once");

	hook.fsync_errno = EIO;
	is(outcome_of(store_put_back(store, RUN, "d/e/b.mp3", &b)), FILE_OK, "put back");
	is(store_sync(store), EIO, "a failed fsync is reported");
	hook.fsync_errno = ENOSPC;
	is(store_sync(store), 0, "... once");
	is(outcome_of(store_destroy(store, RUN, "a.mp3", &a, &freed)), FILE_OK, "destroyed");
	b = know(store, "d/e/b.mp3");
	is(outcome_of(store_capture(store, 43, "d/e/b.mp3", &b)), FILE_OK, "captured");
	is(store_sync(store), ENOSPC, "so is one of a folder that was let go");

	/* more folders than wait for their fsync */
	for (int i = 0; i < 40; i++)
	{
		FileIdentity file;
		const char *path = tap_text("f%d/c.mp3", i);

		make(tap_text("f%d", i));
		file = put_and_know(store, path, "c");
		must(store_capture(store, RUN, path, &file).outcome == FILE_OK, path);
		if (i == 20)
			hook.fsync_errno = EIO;
	}
	is(store_sync(store), ENOSPC, "the first failure counts");
	hook.fsync_errno = EINVAL;
	is(outcome_of(store_destroy(store, 43, "d/e/b.mp3", &b, &freed)), FILE_OK,
	   "destroyed");
	is(store_sync(store), 0, "a file system that cannot fsync a directory is let be");
	store_close(store);
}

static void
test_long_path(void)
{
	FileStore  *store = fresh("long");
	FileIdentity file;
	char		path[STORE_PATH_MAX];
	int			len = 0;
	int64		freed;
	int			fd = open(top, O_RDONLY | O_DIRECTORY);

	/* 4095 bytes: longer than any path that the kernel takes at once */
	for (int i = 0; i < 15; i++)
	{
		char		name[256];
		int			child;

		memset(name, 'a' + i, 255);
		name[255] = '\0';
		must(mkdirat(fd, name, 0755) == 0, "mkdirat");
		child = openat(fd, name, O_RDONLY | O_DIRECTORY);
		close(fd);
		fd = child;
		len += sprintf(path + len, "%s/", name);
	}
	memset(path + len, 'z', STORE_PATH_MAX - 1 - len);
	path[STORE_PATH_MAX - 1] = '\0';
	must(mknodat(fd, path + len, S_IFREG | 0644, 0) == 0, "mknodat");
	close(fd);

	file = know(store, path);
	is(outcome_of(store_capture(store, RUN, path, &file)), FILE_OK, "4095 bytes: captured");
	is(outcome_of(store_put_back(store, RUN, path, &file)), FILE_OK, "put back");
	file = know(store, path);
	is(outcome_of(store_capture(store, RUN, path, &file)), FILE_OK, "captured");
	is(outcome_of(store_destroy(store, RUN, path, &file, &freed)), FILE_OK, "destroyed");
	store_tidy(store, RUN);
	ok(!there(".audio_cleanup"), "tidied");
	store_close(store);
}

static void
test_unprivileged(void)
{
	FileStore  *store = fresh("unprivileged");
	FileIdentity file;
	FileIdentity any;

	make("d");
	file = put_and_know(store, "a.mp3", "a");
	must(chmod(top, 0555) == 0, "chmod");
	is(store_check_writable(store), EACCES, "a directory without w is not writable");
	is_failure(store_capture(store, RUN, "a.mp3", &file), EACCES, "could not create directory",
			   "... no trash can be made");
	must(chmod(top, 0755) == 0 && mkdir(at(".audio_cleanup"), 0700) == 0 &&
		 mkdir(at(".audio_cleanup/trash"), 0700) == 0 &&
		 mkdir(at(TRASH), 0700) == 0 && chmod(top, 0555) == 0, "mkdir");
	is_failure(store_capture(store, RUN, "a.mp3", &file), EACCES, "could not rename file",
			   "... nor can a file be captured");
	must(chmod(top, 0755) == 0, "chmod");
	ok(there("a.mp3"), "... it is where it was");

	put("d/b.mp3", "b");
	must(chmod(at("d"), 0) == 0, "chmod");
	is_failure(store_identify(store, "d/b.mp3", false, &any), EACCES, "could not open directory",
			   "a directory without permissions");
	must(chmod(at("d"), 0755) == 0, "chmod");

	must(chmod(top, 0444) == 0, "chmod");
	ok(store_open(top) == NULL && errno == EACCES, "readable, not searchable: EACCES");
	must(chmod(top, 0333) == 0, "chmod");
	ok(store_open(top) == NULL && errno == EACCES, "searchable, not readable: EACCES");
	must(chmod(top, 0755) == 0, "chmod");
	store_close(store);
}

/*
 * Mount points need root and a mount namespace; a container may refuse.
 */
static void
test_mounts(const char *name, bool no_mount_ids)
{
	FileStore  *store = fresh(name);
	FileIdentity file;
	FileIdentity any;

	if (geteuid() != 0 || system("command -v mount >/dev/null") != 0)
	{
		skip("mounting takes root");
		store_close(store);
		return;
	}
	hook.no_mount_ids = no_mount_ids;
	make("real");
	make("bound");
	make("other");
	file = put_and_know(store, "real/a.mp3", "x");
	put("bound.mp3", "x");
	if (system(tap_text("mount --bind '%s' '%s' && mount -t tmpfs none '%s'"
						" && mount --bind '%s' '%s'",
						at("real"), at("bound"), at("other"), at("real/a.mp3"),
						at("bound.mp3"))) != 0)
		skip("mount is not permitted");
	else
	{
		put("other/a.mp3", "x");
		store_sync(store);
		is_failure(store_identify(store, "other/a.mp3", false, &any), EXDEV, NULL,
				   tap_text("%s: another file system", name));
		is_failure(store_identify(store, "bound/a.mp3", false, &any), EXDEV, NULL,
				   tap_text("%s: a bind mount of the same", name));
		is_failure(store_capture(store, RUN, "bound/a.mp3", &file), EXDEV, NULL,
				   tap_text("%s: ... not captured through it", name));
		is_failure(store_identify(store, "bound.mp3", false, &any), EXDEV, NULL,
				   tap_text("%s: a file that is a mount point", name));
		must(mkdir(at(".audio_cleanup"), 0700) == 0, "mkdir");
		must(system(tap_text("mount --bind '%s' '%s'", at("real"),
							 at(".audio_cleanup"))) == 0, "mount");
		is_failure(store_capture(store, RUN, "real/a.mp3", &file), EPERM,
				   "could not trust directory", "a trash that is mounted is not trusted");
		(void) system(tap_text("umount '%s'", at(".audio_cleanup")));
	}
	(void) system(tap_text("umount '%s' '%s' '%s' 2>/dev/null", at("bound"),
						   at("other"), at("bound.mp3")));
	store_close(store);
}


/* ----------
 * Measurements
 * ----------
 */

static void
measure(const char *title, bool nested, int count)
{
	FileStore  *store = fresh(title);
	FileIdentity *files = palloc(count * sizeof(FileIdentity));
	char		path[64];
	double		began;
	int			good = 0;
	int			errnum;
	int64		freed;

#define PATH_OF(i) \
	snprintf(path, sizeof(path), nested ? "%02d/%05d/a.mp3" : "%02d-%05d.mp3", (i) / 100, i)

	for (int i = 0; i < count; i++)
	{
		if (nested && i % 100 == 0)
			make(tap_text("%02d", i / 100));
		if (nested)
			make(tap_text("%02d/%05d", i / 100, i));
		PATH_OF(i);
		put(path, "x");
	}
	began = seconds();
	for (int i = 0; i < count; i++)
	{
		PATH_OF(i);
		files[i] = know(store, path);
	}
	diag("%s: identify %d files: %.0f ms", title, count, (seconds() - began) * 1000);

	store_set_durable(store, false);
	began = seconds();
	hook.nopenat = hook.nstatx = 0;
	for (int i = 0; i < count; i++)
	{
		PATH_OF(i);
		good += store_capture(store, RUN, path, &files[i]).outcome == FILE_OK;
	}
	store_sync(store);
	is(good, count, "all captured");
	diag("%s: capture, not durable: %.0f ms, %d openat, %d statx, %d fsync", title,
		 (seconds() - began) * 1000, hook.nopenat, hook.nstatx, hook.nfsync);
	if (!nested)
		ok(hook.nopenat < 10, "a flat directory costs no openat() a file");

	store_set_durable(store, true);
	began = seconds();
	for (int i = 0; i < count; i++)
	{
		PATH_OF(i);
		good -= store_locate(store, RUN, path, &files[i], true, &errnum) == PLACE_TRASH;
	}
	is(store_sync(store), 0, "synced");
	is(good, 0, "all located");
	diag("%s: locate and sync: %.0f ms, %d fsync", title,
		 (seconds() - began) * 1000, hook.nfsync);

	began = seconds();
	hook.nfsync = 0;
	for (int i = 0; i < count; i++)
	{
		PATH_OF(i);
		good += store_put_back(store, RUN, path, &files[i]).outcome == FILE_OK;
	}
	is(store_sync(store), 0, "synced");
	is(good, count, "all put back");
	diag("%s: put back and sync: %.0f ms, %d fsync", title,
		 (seconds() - began) * 1000, hook.nfsync);

	began = seconds();
	hook.nfsync = 0;
	for (int i = 0; i < count; i++)
	{
		PATH_OF(i);
		files[i] = know(store, path);
		good -= store_capture(store, RUN, path, &files[i]).outcome == FILE_OK;
	}
	is(store_sync(store), 0, "synced");
	is(good, 0, "all captured");
	diag("%s: capture and sync, durable: %.0f ms, %d fsync", title,
		 (seconds() - began) * 1000, hook.nfsync);

	began = seconds();
	hook.nfsync = 0;
	for (int i = 0; i < count; i++)
	{
		PATH_OF(i);
		good += store_destroy(store, RUN, path, &files[i], &freed).outcome == FILE_OK;
	}
	is(store_sync(store), 0, "synced");
	is(good, count, "all destroyed");
	diag("%s: destroy and sync: %.0f ms, %d fsync", title,
		 (seconds() - began) * 1000, hook.nfsync);

	began = seconds();
	store_tidy(store, RUN);
	ok(!there(".audio_cleanup"), "tidied");
	diag("%s: tidy: %.0f ms", title, (seconds() - began) * 1000);
	pfree(files);
	store_close(store);
}

int
main(void)
{
	const char *count = getenv("UNIT_FILES");
	int			descriptors;

	begin_scratch("store", 0777, 600);
	descriptors = count_descriptors();

	test_open();
	test_life();
	test_destroy_many();
	test_under_way();
	test_paths();
	test_nested();
	test_kinds();
	test_hard_link();
	test_replaced_before();
	test_strikes();
	test_long_spare_name();
	test_killed();
	test_put_back_taken();
	test_stale();
	test_swapped_parent();
	test_hostile_trash();
	test_no_space();
	test_projects();
	test_copied_trash();
	test_figures();
	test_folders();
	test_old_kernel();
	test_unverifiable();
	test_sync();
	test_long_path();
	test_mounts("mounts", false);
	test_mounts("mounts that statx() does not tell", true);
	as_nobody(test_unprivileged);
	measure("many-flat", false, count ? atoi(count) : 10000);
	measure("many-nested", true, count ? atoi(count) : 10000);
	is(count_descriptors(), descriptors, "no descriptor is left open");

	clean_up();
	return tap_end();
}
