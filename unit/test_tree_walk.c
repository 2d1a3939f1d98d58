/*-------------------------------------------------------------------------
 *
 * test_tree_walk.c
 *	  Walks trees of which some folders must not be walked.
 *
 * openat() and readdir() are interposed, to change the tree between the
 * listing of a directory and its opening, and to play file systems that do
 * not tell the type of an entry or break while they are read.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>

#include "src/store/walk.h"
#define SCRATCH
#include "common.h"

static struct
{
	void		(*before_open) (void);	/* of "victim" */
	bool		hide_types;
	int			readdir_errno;
	int			nreaddir_good;	/* entries before readdir() fails */
	int			nstatx;
	bool		no_mount_ids;	/* as before Linux 5.8 */
	size_t		name_len;		/* length of a name that begins with "x"; 0:
								 * unchanged */
}			hook;

int
openat(int fd, const char *path, int flags,...)
{
	REAL(openat);

	if (hook.before_open != NULL && strcmp(path, "victim") == 0)
	{
		void		(*strike) (void) = hook.before_open;

		hook.before_open = NULL;
		strike();
	}
	return real(fd, path, flags);
}

/* Returns the entry with a name that is longer than NAME_MAX, as on some file systems. */
static struct dirent *
stretch(const struct dirent *entry, size_t len)
{
	static union
	{
		struct dirent entry;
		char		room[sizeof(struct dirent) + STORE_PATH_MAX];
	}			longer;
	char	   *name = longer.room + offsetof(struct dirent, d_name);

	longer.entry = *entry;
	memset(name, 'x', len);
	name[len] = '\0';
	return &longer.entry;
}

struct dirent *
readdir(DIR *dir)
{
	REAL_LARGE(readdir);
	struct dirent *entry;

	if (hook.readdir_errno != 0 && hook.nreaddir_good-- <= 0)
	{
		errno = hook.readdir_errno;
		return NULL;
	}
	entry = real(dir);
	if (entry != NULL && hook.hide_types)
		entry->d_type = DT_UNKNOWN;
	if (entry != NULL && hook.name_len > 0 && entry->d_name[0] == 'x')
		entry = stretch(entry, hook.name_len);
	return entry;
}

int
statx(int fd, const char *path, int flags, unsigned int mask,
	  struct statx *buf)
{
	REAL(statx);

	hook.nstatx++;
	return real(fd, path, flags, mask, buf) != 0 ? -1 : without_mount_id(buf, hook.no_mount_ids);
}

static void
clean_up(void)
{
	memset(&hook, 0, sizeof(hook));
	remove_base();
}

static FileStore *
fresh(const char *name)
{
	memset(&hook, 0, sizeof(hook));
	return open_fresh(name);
}

static int
compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static char failure[STORE_PATH_MAX + 256];

/*
 * Returns all paths that a walk yields, sorted, each followed by "|"; or NULL.
 */
static char *
walk_all(FileStore *store, bool recurse)
{
	TreeWalk   *walk = walk_begin(store, recurse, 0);
	char	   *found[1000];
	char	   *all = pg_strdup("");
	const char *path;
	const char *what;
	int			errnum;
	int			nfound = 0;
	WalkStep	step;

	while ((step = walk_next(walk, &path)) == WALK_FILE && nfound < 1000)
		found[nfound++] = pg_strdup(path);
	is(walk_next(walk, &path), step, "the end, or failure, is final");
	path = walk_failure(walk, &errnum, &what);
	if (step == WALK_FAILED)
		snprintf(failure, sizeof(failure), "%s:%s:%s", what, path,
				 strerror(errnum));
	walk_end(walk);

	qsort(found, nfound, sizeof(char *), compare_strings);
	for (int i = 0; i < nfound; i++)
	{
		char	   *longer = psprintf("%s%s|", all, found[i]);

		pfree(all);
		pfree(found[i]);
		all = longer;
	}
	if (step == WALK_END)
		return all;
	pfree(all);
	return NULL;
}

static void
yields(FileStore *store, const char *want, const char *text)
{
	char	   *got = walk_all(store, true);

	if (!ok(got != NULL && strcmp(got, want) == 0, "%s", text))
		diag("got %s", got ? got : failure);
	if (got)
		pfree(got);
}

static void
fails(FileStore *store, const char *want, const char *text)
{
	char	   *got = walk_all(store, true);

	if (!ok(got == NULL && strcmp(failure, want) == 0, "%s", text))
		diag("got %s", got ? got : failure);
	if (got)
		pfree(got);
}


static void
plant(void)
{
	put("a.mp3", "");
	put(".hidden.mp3", "");
	put("new\nline.mp3", "");
	put("-rf", "");
	put("\xff\xfe", "");
	make("d");
	put("d/b.mp3", "");
	make("d/e");
	put("d/e/c.mp3", "");
	make("d/empty");
	make(".audio_cleanup");
	put(".audio_cleanup/claim", "");
	make("d/.hidden");
	put("d/.hidden/x.mp3", "");
	make("dir.mp3");
	must(mkfifo(at("fifo.mp3"), 0600) == 0, "mkfifo");
	must(symlink("a.mp3", at("link.mp3")) == 0, "symlink");
	must(symlink("..", at("d/up")) == 0, "symlink");
	must(symlink("/etc", at("etc")) == 0, "symlink");
}

#define PLANTED "-rf|a.mp3|d/b.mp3|d/e/c.mp3|new\nline.mp3|\xff\xfe|"

static void
test_kinds(void)
{
	FileStore  *store = fresh("kinds");
	char	   *got;

	yields(store, "", "an empty directory");
	plant();
	hook.nstatx = 0;
	yields(store, PLANTED, "regular files, and none that is hidden or linked to");
	is(hook.nstatx, 5, "one stat a directory, none a file");
	yields(store, PLANTED, "a second walk sees the same");
	hook.hide_types = true;
	yields(store, PLANTED, "the same where readdir() tells no types");
	hook.hide_types = false;
	got = walk_all(store, false);
	ok(got && strcmp(got, "-rf|a.mp3|new\nline.mp3|\xff\xfe|") == 0,
	   "without recursion just the top");
	pfree(got);
	store_close(store);
}

static void
remove_victim(void)
{
	must(unlink(at("d/victim/x.mp3")) == 0 && rmdir(at("d/victim")) == 0, "rm");
}

static void
file_for_victim(void)
{
	remove_victim();
	put("d/victim", "");
}

static void
fifo_for_victim(void)
{
	remove_victim();
	must(mkfifo(at("d/victim"), 0600) == 0, "mkfifo");
}

static void
symlink_for_victim(void)
{
	remove_victim();
	must(symlink("/etc", at("d/victim")) == 0, "symlink");
}

static void
test_races(void)
{
	static void (*const strikes[]) (void) = {remove_victim, file_for_victim,
		fifo_for_victim, symlink_for_victim
	};

	for (int i = 0; i < (int) lengthof(strikes); i++)
	{
		FileStore  *store = fresh(tap_text("races-%d", i));

		make("d");
		put("d/a.mp3", "");
		make("d/victim");
		put("d/victim/x.mp3", "");
		hook.before_open = strikes[i];
		yields(store, "d/a.mp3|", "a directory that goes before it is opened");
		store_close(store);
	}
}

static void
test_broken(void)
{
	FileStore  *store = fresh("broken");

	make("d");
	put("d/a.mp3", "");
	hook.readdir_errno = EIO;
	fails(store, "could not read directory:.:Input/output error", "readdir fails at once");
	hook.nreaddir_good = 100;
	yields(store, "d/a.mp3|", "readdir does not fail");
	must(unlink(at("d/a.mp3")) == 0 && rmdir(at("d")) == 0 && rmdir(top) == 0, "rm");
	memset(&hook, 0, sizeof(hook));
	yields(store, "", "an upload directory that is removed yields nothing");
	store_close(store);
}

static void
test_broken_trash(void)
{
	FileStore  *store = fresh("broken-trash");
	int64		runs[4];

	is(store_trash_runs(store, runs, lengthof(runs)), 0, "without a trash there are no runs");
	make(".audio_cleanup");
	make(".audio_cleanup/trash");
	make(".audio_cleanup/trash/7");
	make(".audio_cleanup/trash/x");
	is(store_trash_runs(store, runs, lengthof(runs)), 1, "a run has a trash");
	is(runs[0], 7, "... which tells its number");
	hook.readdir_errno = EIO;
	errno = 0;
	is(store_trash_runs(store, runs, lengthof(runs)), -1, "a trash that cannot be read is not taken for an empty one");
	is(errno, EIO, "... and says why");
	memset(&hook, 0, sizeof(hook));
	store_close(store);
}

/*
 * vfat, NTFS, SMB and others count characters, so that a name may have 765 bytes.
 * The sanitizer sees where the last name of a portion ends.
 */
static void
test_long_names(void)
{
	FileStore  *store = fresh("long-names");
	char		name[STORE_PATH_MAX - 5];
	char	   *got;
	size_t		n = 0;

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	for (int i = 0; i < 200; i++)
		put(tap_text("x%d", i), "");
	hook.name_len = strlen(name);
	got = walk_all(store, true);
	for (const char *at = got; at != NULL && strncmp(at, name, strlen(name)) == 0; at += strlen(name) + 1)
		n++;
	is(n, 200, tap_text("names of %zu bytes are passed on whole", strlen(name)));
	pfree(got);

	hook.name_len = 0;
	make("d");
	make("d/x");
	put("d/a.mp3", "");
	hook.name_len = 300;
	name[300] = '\0';
	fails(store, tap_text("could not open directory:d/%s:%s", name, strerror(ENAMETOOLONG)),
		  "the name of a folder is not cut");
	store_close(store);
}

static void
dig(int depth)
{
	int			fd = open(top, O_RDONLY | O_DIRECTORY);

	for (int i = 0; i < depth; i++)
	{
		int			child;

		must(mkdirat(fd, "d", 0755) == 0, "mkdirat");
		child = openat(fd, "d", O_RDONLY | O_DIRECTORY);
		close(fd);
		fd = child;
	}
	close(fd);
}

static void
test_depth(void)
{
	FileStore  *store = fresh("depth-64");
	char		path[3 * WALK_MAX_DEPTH];
	char		want[sizeof(path) + 100];

	path[0] = '\0';
	for (int i = 0; i < WALK_MAX_DEPTH; i++)
		strcat(path, "d/");
	dig(WALK_MAX_DEPTH);
	put(tap_text("%sa.mp3", path), "");
	snprintf(want, sizeof(want), "%sa.mp3|", path);
	yields(store, want, "64 directories deep");
	store_close(store);

	store = fresh("depth-70");
	dig(70);
	snprintf(want, sizeof(want), "could not walk directory:%sd:%s", path, strerror(ELOOP));
	fails(store, want, "65 is too deep");
	store_close(store);
}

static void
test_long_path(void)
{
	FileStore  *store = fresh("long");
	char		name[256];
	char		want[STORE_PATH_MAX + 256];
	int			fd = open(top, O_RDONLY | O_DIRECTORY);
	int			len = sprintf(want, "could not walk directory:");

	memset(name, 'n', 255);
	name[255] = '\0';
	for (int i = 0; i < 17; i++)
	{
		int			child;

		must(mkdirat(fd, name, 0755) == 0, "mkdirat");
		child = openat(fd, name, O_RDONLY | O_DIRECTORY);
		close(fd);
		fd = child;
		if (i < 15)
			len += sprintf(want + len, "%s%s", i > 0 ? "/" : "", name);
	}
	close(fd);

	/* sixteen of 255 with slashes between are 4095 */
	len += sprintf(want + len, "/%s", name);
	sprintf(want + len, ":%s", strerror(ENAMETOOLONG));
	fails(store, want, "a path of 4096 bytes is too long");
	store_close(store);
}

/* A directory takes write permission to move. */
static void
rename_secret(const char *from, const char *to)
{
	must(chmod(at(from), 0700) == 0 && rename(at(from), at(to)) == 0 &&
		 chmod(at(to), 0) == 0, "rename");
}

static void
test_unprivileged(void)
{
	FileStore  *store = fresh("unprivileged");

	make("d");
	make("d/secret");
	put("a.mp3", "");
	put("d/b.mp3", "");
	must(chmod(at("d/secret"), 0) == 0, "chmod");
	fails(store, "could not open directory:d/secret:Permission denied",
		  "an unreadable directory fails the walk");
	rename_secret("d/secret", "d/lost+found");
	fails(store, "could not open directory:d/lost+found:Permission denied",
		  "... whatever it is called");
	rename_secret("d/lost+found", "lost+found");
	yields(store, "a.mp3|d/b.mp3|", "... but lost+found at the top");
	must(chmod(at("lost+found"), 0755) == 0, "chmod");
	put("lost+found/c.mp3", "");
	yields(store, "a.mp3|d/b.mp3|", "... which is let alone even if it can be read");
	must(chmod(at("d"), 0444) == 0, "chmod");
	hook.hide_types = true;
	fails(store, "could not stat file:d:Permission denied", "readable but not searchable");
	must(chmod(at("d"), 0755) == 0, "chmod");
	must(chmod(top, 0) == 0, "chmod");
	fails(store, "could not open directory:.:Permission denied",
		  "an upload directory that lost its permissions");
	must(chmod(top, 0755) == 0, "chmod");
	store_close(store);
}

/*
 * Checks that folders of a NAS, a synchroniser or an operating system are not
 * walked.
 */
static void
test_foreign_folders(void)
{
	static const char *const folders[] = {
		"#recycle", "@eaDir", "$RECYCLE.BIN", "System Volume Information", ".stversions",
		".Trash-1000", ".snapshot", "lost+found", "d/@EADIR", "d/#recycle",
	};
	FileStore  *store = fresh("foreign");

	make("d");
	put("a.mp3", "");
	for (int i = 0; i < lengthof(folders); i++)
	{
		make(folders[i]);
		put(tap_text("%s/x.mp3", folders[i]), "");
	}
	make("@eaDir2");
	put("@eaDir2/y.mp3", "");
	put("d/@tmp", "");
	yields(store, "@eaDir2/y.mp3|a.mp3|d/@tmp|", "the folders of others are let alone");
	store_close(store);
}

/* The walk does not come to `path`, for this reason, and `part` is to blame. */
static void
is_left_out(FileStore *store, const char *path, WalkReason want, const char *part)
{
	size_t		len;
	WalkReason	got = walk_why_not(store, path, true, &len);

	if (!ok(got == want && len == strlen(part) && strncmp(path, part, len) == 0,
			"%s: %s", path, walk_reason_text(want) ? walk_reason_text(want) : "reached"))
		diag("got %d, \"%.*s\"", got, (int) len, path);
}

/* Checks that walk_why_not() agrees with the walk. */
static void
test_reasons(void)
{
	FileStore  *store = fresh("reasons");
	char		deep[2 * (WALK_MAX_DEPTH + 1) + 8] = "";
	size_t		len;
	int			i;

	plant();
	must(symlink("d", at("s")) == 0, "symlink");
	is_left_out(store, "a.mp3", WALK_REACHED, "");
	is_left_out(store, "d/e/c.mp3", WALK_REACHED, "");
	is_left_out(store, "d/nothing/there.mp3", WALK_REACHED, "");
	is_left_out(store, "a.mp3/b.mp3", WALK_REACHED, "");
	is_left_out(store, ".hidden.mp3", WALK_HIDDEN, ".hidden.mp3");
	is_left_out(store, "d/.hidden/x.mp3", WALK_HIDDEN, "d/.hidden");
	is_left_out(store, ".audio_cleanup/claim", WALK_HIDDEN, ".audio_cleanup");
	is_left_out(store, "#recycle/b.mp3", WALK_FOREIGN, "#recycle");
	is_left_out(store, "d/@EADIR/b.mp3", WALK_FOREIGN, "d/@EADIR");
	is_left_out(store, "lost+found/b.mp3", WALK_FOREIGN, "lost+found");
	is_left_out(store, "link.mp3", WALK_SYMLINK, "link.mp3");
	is_left_out(store, "s/e/c.mp3", WALK_SYMLINK, "s");
	is_left_out(store, "d/up/a.mp3", WALK_SYMLINK, "d/up");
	is_left_out(store, "dir.mp3", WALK_NOT_A_FILE, "dir.mp3");
	is_left_out(store, "fifo.mp3", WALK_NOT_A_FILE, "fifo.mp3");
	for (i = 0; i <= WALK_MAX_DEPTH; i++)
		strcat(deep, "d/");
	strcat(deep, "x.mp3");
	is_left_out(store, deep, WALK_TOO_DEEP, deep);
	is_left_out(store, deep + 2, WALK_REACHED, "");
	is(walk_why_not(store, "d/b.mp3", false, &len), WALK_NOT_RECURSIVE, "not in folders");
	is(walk_why_not(store, "a.mp3", false, &len), WALK_REACHED, "the top is walked at any rate");
	store_close(store);
}

static void
test_mounts(const char *name, bool no_mount_ids)
{
	FileStore  *store = fresh(name);

	hook.no_mount_ids = no_mount_ids;
	if (geteuid() != 0 || system("command -v mount >/dev/null") != 0)
	{
		skip("mounting takes root");
		store_close(store);
		return;
	}
	make("real");
	make("bound");
	make("other");
	put("real/a.mp3", "");
	if (system(tap_text("mount --bind '%s' '%s' && mount -t tmpfs none '%s'",
						top, at("bound"), at("other"))) != 0)
		skip("mount is not permitted");
	else
	{
		put("other/b.mp3", "");
		yields(store, "real/a.mp3|", tap_text("%s: mount points are not crossed, nor loops walked", name));
		is_left_out(store, "other/b.mp3", WALK_MOUNT, "other");
		is_left_out(store, "bound/real/a.mp3", WALK_MOUNT, "bound");
	}
	(void) system(tap_text("umount '%s' '%s' 2>/dev/null", at("bound"), at("other")));
	store_close(store);
}

/* A folder with a private folder of its own is somebody's upload directory; its files are passed on, too. */
static void
test_claimed(void)
{
	FileStore  *store = fresh("claimed");
	TreeWalk   *walk = NULL;
	const char *path;
	WalkStep	step;
	int			files = 0;
	int			claimed = 0;

	make(STORE_PRIVATE_DIR);
	make("a");
	make("a/b");
	make("a/b/" STORE_PRIVATE_DIR);
	make("c");
	put(STORE_PRIVATE_DIR "/claim", "");
	put("a/b/" STORE_PRIVATE_DIR "/claim", "");
	put("a/b/1.mp3", "");
	put("a/2.mp3", "");
	put("c/3.mp3", "");
	put("c/.audio_cleanup2", "");
	for (walk = walk_begin(store, true, 0); (step = walk_next(walk, &path)) == WALK_FILE || step == WALK_CLAIMED;)
		if (step == WALK_FILE)
			files++;
		else if (strcmp(path, "a/b") == 0)
			claimed++;
		else
			claimed = -100;
	is(step, WALK_END, "the walk goes on behind a folder that is claimed");
	is(files, 3, "it passes on all files");
	is(claimed, 1, "and the folder, once, but not its own");
	walk_end(walk);
	walk = walk_begin(store, false, 0);
	is(walk_next(walk, &path), WALK_END, "without folders there is none that is claimed");
	walk_end(walk);
	store_close(store);
}

/* An abandoned walk leaves nothing open. */
static void
test_abandoned(void)
{
	FileStore  *store = fresh("abandoned");
	TreeWalk   *walk;
	const char *path;
	int			descriptors = count_descriptors();

	dig(10);
	put("d/d/d/a.mp3", "");
	walk_end(walk_begin(store, true, 0));
	walk_end(NULL);
	walk = walk_begin(store, true, 0);
	is(walk_next(walk, &path), WALK_FILE, "a file somewhere below");
	walk_end(walk);
	is(count_descriptors(), descriptors, "all is closed");
	store_close(store);
}

/*
 * Walks more files than a portion has, with folders amid the files: each file
 * comes once, and the files of a portion come in the order of their inodes.
 */
static void
test_many(void)
{
	const char *setting = getenv("UNIT_FILES");
	int			count = setting ? atoi(setting) : 100000;
	FileStore  *store = fresh("many");
	TreeWalk   *walk;
	const char *path;
	double		began;
	int			seen = 0;
	int			twice = 0;
	int			falls = 0;
	ino_t		last = 0;
	bool	   *known = pg_malloc0(count);

	for (int i = 0; i < count; i++)
	{
		char		name[32];

		snprintf(name, sizeof(name), "%06d.mp3", i);
		if (i % 20000 == 0)
		{
			snprintf(name, sizeof(name), "folder%06d", i);
			must(mkdir(at(name), 0755) == 0, name);
			snprintf(name, sizeof(name), "folder%06d/%06d.mp3", i, i);
		}
		put(name, "");
	}
	began = seconds();
	walk = walk_begin(store, true, 0);
	while (walk_next(walk, &path) == WALK_FILE)
	{
		int			number = atoi(path + strlen(path) - strlen("000000.mp3"));
		struct stat look;

		seen++;
		twice += known[number];
		known[number] = true;
		must(stat(at(path), &look) == 0, path);
		falls += look.st_ino < last;
		last = look.st_ino;
	}
	walk_end(walk);
	is(seen, count, "every file of many is seen");
	is(twice, 0, "none is seen twice");
	ok(falls <= count / 4096 + 20, "they come by their inodes: %d falls", falls);
	diag("walk of %d files: %.0f ms", count, (seconds() - began) * 1000);
	pg_free(known);
	store_close(store);
}

int
main(void)
{
	int			descriptors;

	begin_scratch("tree_walk", 0777, 600);
	descriptors = count_descriptors();

	test_kinds();
	test_races();
	test_broken();
	test_broken_trash();
	test_long_names();
	test_depth();
	test_long_path();
	test_foreign_folders();
	as_nobody(test_unprivileged);
	test_reasons();
	test_mounts("mounts", false);
	test_mounts("mounts that statx() does not tell", true);
	test_claimed();
	test_abandoned();
	test_many();
	is(count_descriptors(), descriptors, "no descriptor is left open");

	clean_up();
	return tap_end();
}
