/*-------------------------------------------------------------------------
 *
 * test_claim_file.c
 *	  Tries to get two processes past the lock on a claim, or to hang a
 *	  process.
 *
 * A process that is forked would share its parent's lock, so a second process,
 * with stores of its own, is started before anything is locked, and gets its
 * orders through a pipe.  The test interposes the calls between which a claim
 * may be replaced, and the calls with which the test plays other file systems.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include "src/store/claim_file.h"
#include "src/store/private.h"

#define RUN		INT64CONST(42)
#define PRIVATE ".audio_cleanup"
#define CLAIM	PRIVATE "/claim"

/* what the table in lock.c has room for */
#define MAX_LOCKS	16

#define SCRATCH
#include "common.h"


/* ----------
 * Interposed system calls
 * ----------
 */

static struct
{
	void		(*before_open) (void);	/* of the claim; each time */
	void		(*after_flock) (void);	/* each time */
	int			flock_errno;
	bool		flock_interrupted;	/* once */
	bool		flock_is_posix; /* exclusive only if open for writing */
	bool		flock_is_mandatory;
	bool		device_is_anonymous;
	const char *proc_locks;
}			hook;

int
openat(int fd, const char *path, int flags,...)
{
	va_list		args;
	mode_t		mode;

	REAL(openat);

	va_start(args, flags);
	mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(args, mode_t) : 0;
	va_end(args);
	if (hook.before_open != NULL && strcmp(path, "claim") == 0)
		hook.before_open();
	return real(fd, path, flags, mode);
}

FILE *
fopen(const char *path, const char *mode)
{
	REAL(fopen);

	if (hook.proc_locks != NULL && strcmp(path, "/proc/locks") == 0)
		path = hook.proc_locks;
	return real(path, mode);
}

int
flock(int fd, int operation)
{
	int			rc;

	REAL(flock);

	errno = hook.flock_errno;
	if (hook.flock_interrupted)
		errno = EINTR;
	else if (hook.flock_is_posix && (operation & LOCK_EX) &&
			 (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		errno = EBADF;
	hook.flock_interrupted = false;
	rc = errno != 0 ? -1 : real(fd, operation);
	if (hook.after_flock != NULL && (operation & LOCK_EX))
	{
		int			save_errno = errno;

		hook.after_flock();
		errno = save_errno;
	}
	return rc;
}

ssize_t
read(int fd, void *buf, size_t n)
{
	REAL(read);

	if (hook.flock_is_mandatory)
	{
		errno = EACCES;
		return -1;
	}
	return real(fd, buf, n);
}

int
statx(int fd, const char *path, int flags, unsigned int mask,
	  struct statx *buf)
{
	int			rc;

	REAL(statx);

	rc = real(fd, path, flags, mask, buf);
	if (rc == 0 && hook.device_is_anonymous)
	{
		buf->stx_dev_major = 0;
		buf->stx_dev_minor = 999;
	}
	return rc;
}


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

static FileStore *
open_again(void)
{
	FileStore  *store = store_open(top);

	must(store != NULL, "store_open");
	return store;
}

/* Begin a case in a directory of its own, which has no claim. */
static FileStore *
fresh_without(const char *name)
{
	memset(&hook, 0, sizeof(hook));
	return open_fresh(name);
}

/* Begins a case in a directory of its own, which has a claim. */
static FileStore *
fresh(const char *name)
{
	FileStore  *store = fresh_without(name);

	must(store_write_claim(store, "mine", false).outcome == FILE_OK, "store_write_claim");
	return store;
}

/* Replaces the claim as store_write_claim() does, but without a store. */
static void
replace_claim(void)
{
	put(PRIVATE "/claim.other", "other");
	must(rename(at(PRIVATE "/claim.other"), at(CLAIM)) == 0, "rename");
}

static int
outcome_of(FileResult result)
{
	return result.outcome;
}

/*
 * Returns whether any process has locked the file, without the code under
 * test.
 */
static bool
is_locked(const char *path)
{
	int			fd = open(at(path), O_RDONLY | O_CLOEXEC);
	bool		locked;

	must(fd >= 0, path);
	locked = flock(fd, LOCK_EX | LOCK_NB) != 0;
	close(fd);
	return locked;
}


/* ----------
 * The other process
 * ----------
 */

typedef struct Other
{
	pid_t		pid;
	int			commands;
	int			answers;
} Other;

static int
obey(char command, FileStore **store)
{
	switch (command)
	{
		case 'l':
			return store_lock(*store).outcome;
		case 'u':
			store_unlock(*store);
			return 0;
		case 'c':
			store_close(*store);
			*store = open_again();
			return 0;
		case 'h':
			return store_lock_holder(*store);
		case 'f':				/* without the code under test, for good */
			return flock(open(at(CLAIM), O_RDONLY), LOCK_EX | LOCK_NB);
		default:
			return -2;
	}
}

static Other
start_other(void)
{
	Other		other;
	int			commands[2];
	int			answers[2];

	must(pipe(commands) == 0 && pipe(answers) == 0, "pipe");
	other.pid = fork();
	must(other.pid >= 0, "fork");
	if (other.pid == 0)
	{
		FileStore  *store = open_again();
		char		command;

		close(commands[1]);
		close(answers[0]);
		while (read(commands[0], &command, 1) == 1)
		{
			int			answer = obey(command, &store);

			if (write(answers[1], &answer, sizeof(answer)) != sizeof(answer))
				break;
		}
		_exit(0);
	}
	close(commands[0]);
	close(answers[1]);
	other.commands = commands[1];
	other.answers = answers[0];
	return other;
}

static int
tell(const Other *other, char command)
{
	int			answer = 0;

	must(write(other->commands, &command, 1) == 1 &&
		 read(other->answers, &answer, sizeof(answer)) == sizeof(answer), "other");
	return answer;
}

static void
kill_other(const Other *other)
{
	kill(other->pid, SIGKILL);
	waitpid(other->pid, NULL, 0);
	close(other->commands);
	close(other->answers);
}


/* ----------
 * Cases
 * ----------
 */

static void
test_exclusive(void)
{
	FileStore  *store = fresh("exclusive");
	Other		other = start_other();

	store_unlock(store);
	ok(!is_locked(CLAIM), "unlocking without a lock is harmless");
	is(outcome_of(store_lock(store)), FILE_OK, "locked");
	ok(is_locked(CLAIM), "it is an flock on the claim");
	is(outcome_of(store_lock(store)), FILE_OK, "locked again: nothing changes");
	is(tell(&other, 'l'), FILE_OCCUPIED, "another process finds it occupied");
	is(tell(&other, 'h'), getpid(), "... by us");
	store_unlock(store);
	ok(!is_locked(CLAIM), "unlocked, by one unlock for two locks");
	store_unlock(store);
	is(store_lock_holder(store), 0, "nobody holds it");

	is(tell(&other, 'l'), FILE_OK, "now the other one has it");
	is(outcome_of(store_lock(store)), FILE_OCCUPIED, "and we do not");
	is(store_lock_holder(store), other.pid, "... but he");
	tell(&other, 'u');
	is(outcome_of(store_lock(store)), FILE_OK, "until he unlocks");
	store_unlock(store);
	tell(&other, 'l');
	tell(&other, 'c');
	is(outcome_of(store_lock(store)), FILE_OK, "or closes his store");
	store_close(store);
	ok(!is_locked(CLAIM), "closing gives it back");

	store = open_again();
	is(tell(&other, 'f'), 0, "a plain flock() by the other one");
	is(outcome_of(store_lock(store)), FILE_OCCUPIED, "... counts too");
	is(store_lock_holder(store), other.pid, "... and he is told");
	kill_other(&other);
	is(outcome_of(store_lock(store)), FILE_OK, "SIGKILL gives it back");
	store_close(store);

	store = open_again();
	other = start_other();
	is(tell(&other, 'l'), FILE_OK, "the next one locks");
	is(outcome_of(store_lock(store)), FILE_OCCUPIED, "... occupied");
	kill_other(&other);
	is(outcome_of(store_lock(store)), FILE_OK, "... and is killed");
	store_close(store);
}

static void
test_shared(void)
{
	FileStore  *a = fresh("shared");
	FileStore  *b = open_again();
	FileStore  *c = open_again();
	Other		other = start_other();
	int			descriptors;

	is(outcome_of(store_lock(a)), FILE_OK, "one store of a process locks");
	descriptors = count_descriptors();
	is(outcome_of(store_lock(b)), FILE_OK, "and a second");
	is(outcome_of(store_lock(c)), FILE_OK, "and a third");
	is(count_descriptors(), descriptors, "they share the descriptor");
	store_close(a);
	is(tell(&other, 'l'), FILE_OCCUPIED, "the first closes: still locked");
	store_unlock(b);
	store_unlock(b);
	is(tell(&other, 'l'), FILE_OCCUPIED, "the second unlocks, twice: still locked");
	is(outcome_of(store_lock(b)), FILE_OK, "... and locks again");
	store_close(c);
	is(tell(&other, 'l'), FILE_OCCUPIED, "the third closes: still locked");
	store_close(b);
	is(tell(&other, 'l'), FILE_OK, "the last one closes: free");
	kill_other(&other);
}

/* As when a system() has not come to its exec() yet. */
static void
test_forked(void)
{
	FileStore  *store = fresh("forked");
	pid_t		child;

	is(outcome_of(store_lock(store)), FILE_OK, "locked");
	child = fork();
	if (child == 0)
	{
		pause();
		_exit(0);
	}
	store_unlock(store);
	ok(!is_locked(CLAIM), "unlocked, though a child has the descriptor");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	store_close(store);
}

static void
test_no_claim(void)
{
	FileStore  *store = fresh_without("no_claim");
	Other		other;

	is(outcome_of(store_lock(store)), FILE_VANISHED, "no private directory: vanished");
	ok(access(at(PRIVATE), F_OK) != 0, "... and none is made");
	is(store_lock_holder(store), 0, "... nor is there a holder");
	must(mkdir(at(PRIVATE), 0700) == 0, "mkdir");
	is(outcome_of(store_lock(store)), FILE_VANISHED, "no claim: vanished");
	is(store_lock_holder(store), 0, "... nor is there a holder");

	put(CLAIM, "");
	other = start_other();
	is(outcome_of(store_lock(store)), FILE_OK, "an empty claim is locked");
	must(unlink(at(CLAIM)) == 0, "unlink");
	is(outcome_of(store_lock(store)), FILE_VANISHED, "removed while locked: vanished");
	put(CLAIM, "");
	is(tell(&other, 'l'), FILE_OK, "the next claim is anybody's");
	kill_other(&other);
	store_close(store);
}

static void
test_kinds(void)
{
	FileStore  *store = fresh_without("kinds");

	must(mkdir(at(PRIVATE), 0700) == 0, "mkdir");
	must(mkfifo(at(CLAIM), 0600) == 0, "mkfifo");
	is_failure(store_lock(store), EPERM, "could not trust claim", "a fifo, and nobody waits");
	is(store_lock_holder(store), 0, "... no holder");
	must(unlink(at(CLAIM)) == 0 && mkdir(at(CLAIM), 0700) == 0, "mkdir");
	is_failure(store_lock(store), EPERM, "could not trust claim", "a directory");
	must(rmdir(at(CLAIM)) == 0, "rmdir");
	put("target", "x");
	must(symlink(at("target"), at(CLAIM)) == 0, "symlink");
	is_failure(store_lock(store), EPERM, "could not trust claim", "a symlink");
	ok(!is_locked("target"), "... is not followed");
	must(unlink(at(CLAIM)) == 0, "unlink");
	put(CLAIM, "x");
	must(chmod(at(PRIVATE), 0777) == 0, "chmod");
	is_failure(store_lock(store), EPERM, "could not trust directory", "a directory open to all");
	must(chmod(at(PRIVATE), 0700) == 0, "chmod");
	if (geteuid() == 0)
	{
		must(chown(at(CLAIM), 65534, 65534) == 0, "chown");
		is_failure(store_lock(store), EPERM, "could not trust claim", "somebody else's file");
	}
	else
		skip("giving a file away takes root");
	store_close(store);
}

static void
test_replaced_while_held(void)
{
	FileStore  *store = fresh("replaced");
	FileStore  *second = open_again();
	FileStore  *third = open_again();
	Other		other = start_other();

	is(outcome_of(store_lock(store)), FILE_OK, "locked");
	is(outcome_of(store_lock(third)), FILE_OK, "... by two");
	replace_claim();
	is(tell(&other, 'l'), FILE_OK, "replaced: the new claim is free for another process");
	is(outcome_of(store_lock(second)), FILE_OCCUPIED, "... occupied for a second store");
	is(outcome_of(store_lock(store)), FILE_OCCUPIED, "... and for the one with the old lock");
	is(store_lock_holder(store), other.pid, "... it is told by whom");
	tell(&other, 'u');
	is(outcome_of(store_lock(store)), FILE_OK, "free again: it gets the new one");
	is(tell(&other, 'l'), FILE_OCCUPIED, "... which is locked indeed");
	store_close(third);
	is(tell(&other, 'l'), FILE_OCCUPIED, "the last lock on the old one does not matter");
	is(outcome_of(store_lock(second)), FILE_OK, "the new one is shared");
	store_close(store);
	is(tell(&other, 'l'), FILE_OCCUPIED, "... and counted");
	store_close(second);
	is(tell(&other, 'l'), FILE_OK, "... to its end");
	kill_other(&other);
}

static void
replace_once(void)
{
	hook.before_open = hook.after_flock = NULL;
	replace_claim();
}

static void
remove_once(void)
{
	hook.before_open = hook.after_flock = NULL;
	must(unlink(at(CLAIM)) == 0, "unlink");
}

static void
replace_by_symlink(void)
{
	remove_once();
	must(symlink("target", at(CLAIM)) == 0, "symlink");
}

static void
replace_by_fifo(void)
{
	remove_once();
	must(mkfifo(at(CLAIM), 0600) == 0, "mkfifo");
}

static void
test_replaced_meanwhile(void)
{
	FileStore  *store = fresh("meanwhile");
	Other		other;
	int			descriptors = count_descriptors();

	hook.before_open = replace_once;
	is(outcome_of(store_lock(store)), FILE_OK, "replaced before it is opened");
	ok(is_locked(CLAIM), "... the new one is locked");
	store_unlock(store);
	hook.after_flock = replace_once;
	is(outcome_of(store_lock(store)), FILE_OK, "replaced after it was locked");
	ok(is_locked(CLAIM), "... the new one is locked");
	store_unlock(store);

	other = start_other();
	is(tell(&other, 'l'), FILE_OK, "another process locks");
	hook.after_flock = replace_once;
	is(outcome_of(store_lock(store)), FILE_OK, "what is occupied is replaced");
	ok(is_locked(CLAIM), "... the new one is locked");
	is(tell(&other, 'l'), FILE_OCCUPIED, "... and he, who had the old one, sees it");
	store_unlock(store);
	kill_other(&other);

	hook.before_open = replace_claim;
	is_failure(store_lock(store), ESTALE, "could not lock claim", "replaced again and again");
	hook.before_open = NULL;
	hook.after_flock = replace_claim;
	is_failure(store_lock(store), ESTALE, "could not lock claim", "... after it was locked");
	hook.after_flock = NULL;
	ok(!is_locked(CLAIM), "... nothing is locked");

	hook.before_open = remove_once;
	is(outcome_of(store_lock(store)), FILE_VANISHED, "removed before it is opened");
	replace_claim();
	hook.after_flock = remove_once;
	is(outcome_of(store_lock(store)), FILE_VANISHED, "removed after it was locked");
	replace_claim();
	hook.before_open = replace_by_symlink;
	is_failure(store_lock(store), EPERM, "could not trust claim", "a symlink takes its place");
	replace_claim();
	hook.before_open = replace_by_fifo;
	is_failure(store_lock(store), EPERM, "could not trust claim", "a fifo takes its place");
	is(count_descriptors(), descriptors, "none of that leaves a descriptor");
	store_close(store);
}

static void
test_other_file_systems(void)
{
	FileStore  *store = fresh("other_fs");
	static const int without[] = {ENOLCK, EOPNOTSUPP, ENOSYS};
	int			descriptors = count_descriptors();
	char		text[STORE_CLAIM_MAX];

	for (int i = 0; i < (int) lengthof(without); i++)
	{
		hook.flock_errno = without[i];
		is(outcome_of(store_lock(store)), FILE_OK,
		   tap_text("%s: goes without", strerror(without[i])));
		is(outcome_of(store_lock(store)), FILE_OK, "... every time");
		is(count_descriptors(), descriptors, "... and holds nothing");
		store_unlock(store);
	}
	hook.flock_errno = EIO;
	is_failure(store_lock(store), EIO, "could not lock claim", "any other error is one");
	hook.flock_errno = 0;

	hook.flock_interrupted = true;
	is(outcome_of(store_lock(store)), FILE_OK, "a signal does not matter");
	ok(is_locked(CLAIM), "... it is locked");
	store_unlock(store);

	hook.flock_is_posix = true;
	is(outcome_of(store_lock(store)), FILE_OK, "NFS: it is opened for writing");
	hook.flock_is_posix = false;
	ok(is_locked(CLAIM), "... and locked");
	is(outcome_of(store_read_claim(store, text)), FILE_OK, "... it can be read");
	is(strcmp(text, "mine"), 0, "... and has not changed");
	store_unlock(store);
	ok(!is_locked(CLAIM), "... and unlocked");

	hook.flock_is_mandatory = true;
	is(outcome_of(store_lock(store)), FILE_OK, "SMB: goes without");
	hook.flock_is_mandatory = false;
	ok(!is_locked(CLAIM), "... it is not locked");
	is(count_descriptors(), descriptors, "no descriptor is left");
	store_close(store);
}

static void
test_many_times(void)
{
	FileStore  *store = fresh("cycles");
	int			descriptors = count_descriptors();
	int			good = 0;

	for (int i = 0; i < 1000; i++)
	{
		good += store_lock(store).outcome == FILE_OK;
		store_unlock(store);
	}
	is(good, 1000, "1000 times locked and unlocked");
	is(count_descriptors(), descriptors, "no descriptor is left");
	for (int i = 0; i < 1000; i++)
	{
		FileStore  *more = open_again();

		good -= store_lock(more).outcome == FILE_OK;
		store_close(more);
	}
	is(good, 0, "1000 times opened, locked and closed");
	is(count_descriptors(), descriptors, "no descriptor is left");
	ok(!is_locked(CLAIM), "nor a lock");
	store_close(store);
}

static void
test_table(void)
{
	FileStore  *stores[MAX_LOCKS + 1];
	FileStore  *twin;
	int			good = 0;

	for (int i = 0; i <= MAX_LOCKS; i++)
		stores[i] = fresh(tap_text("table-%d", i));
	for (int i = 0; i < MAX_LOCKS; i++)
		good += store_lock(stores[i]).outcome == FILE_OK;
	is(good, MAX_LOCKS, "16 directories at a time");
	is_failure(store_lock(stores[MAX_LOCKS]), EMFILE, "could not lock claim", "17 are too many");
	ok(!is_locked(CLAIM), "... and the last is not locked");
	snprintf(top, sizeof(top), "%s/table-5", base);
	twin = open_again();
	is(outcome_of(store_lock(twin)), FILE_OK, "a lock that the process has is always shared");
	store_close(twin);
	replace_claim();
	is(outcome_of(store_lock(stores[5])), FILE_OK, "a lock moves on to a new claim");
	store_unlock(stores[7]);
	is(outcome_of(store_lock(stores[MAX_LOCKS])), FILE_OK, "one less, and there is room");
	for (int i = 0; i <= MAX_LOCKS; i++)
	{
		store_close(stores[i]);
		snprintf(top, sizeof(top), "%s/table-%d", base, i);
		good -= !is_locked(CLAIM);
	}
	is(good, -1, "all are given back");
}

static void
test_claim_while_locked(void)
{
	FileStore  *store = fresh("claim");
	Other		other = start_other();
	char		text[STORE_CLAIM_MAX];

	is(outcome_of(store_lock(store)), FILE_OK, "locked");
	is(outcome_of(store_read_claim(store, text)), FILE_OK, "the claim is read");
	is(strcmp(text, "mine"), 0, "... as it was");
	is(tell(&other, 'l'), FILE_OCCUPIED, "... and reading it unlocks nothing");
	is(outcome_of(store_write_claim(store, "again", false)), FILE_OCCUPIED,
	   "it is not written a second time");
	is(tell(&other, 'l'), FILE_OCCUPIED, "... nor does that unlock");
	is(outcome_of(store_write_claim(store, "new", true)), FILE_OK, "it is replaced");
	is(outcome_of(store_read_claim(store, text)), FILE_OK, "and read");
	is(strcmp(text, "new"), 0, "... as it is");
	is(outcome_of(store_lock(store)), FILE_OK, "the lock moves on");
	is(tell(&other, 'l'), FILE_OCCUPIED, "... to the new one");
	store_close(store);
	is(tell(&other, 'l'), FILE_OK, "and ends with the store");
	kill_other(&other);
}

/*
 * Checks that the store needs no more descriptors than it has acquired when it
 * was opened.
 */
static void
test_descriptors(void)
{
	FileStore  *store = fresh("descriptors");
	FileIdentity file;
	struct rlimit limit;
	pid_t		child;
	int			status = -1;
	int			spare[7];

	must(mkdir(at("d"), 0755) == 0 && mkdir(at("d/e"), 0755) == 0, "mkdir");
	put("d/e/a.mp3", "a");
	put("d/e/b.mp3", "b");
	store_close(store);
	child = fork();
	if (child == 0)
	{
		/* the limit allows seven more descriptors */
		for (int i = 0; i < 7; i++)
			spare[i] = dup(0);
		must(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
		limit.rlim_cur = spare[6] + 1;
		must(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
		for (int i = 0; i < 7; i++)
			close(spare[i]);
		store_free_slots = 7;
		store = open_again();
		ok(store_identify(store, "d/e/a.mp3", false, &file).outcome == FILE_OK &&
		   store_capture(store, RUN, "d/e/a.mp3", &file).outcome == FILE_OK,
		   "seven descriptors: captured");
		is(outcome_of(store_lock(store)), FILE_OK, "... locked, all directories being held");
		replace_claim();
		is(outcome_of(store_lock(store)), FILE_OK, "... the new claim as well");
		is(getpid(), store_lock_holder(store), "... the holder found");
		ok(store_put_back(store, RUN, "d/e/a.mp3", &file).outcome == FILE_OK &&
		   store_identify(store, "d/e/b.mp3", false, &file).outcome == FILE_OK &&
		   store_capture(store, RUN, "d/e/b.mp3", &file).outcome == FILE_OK,
		   "... and captured, being locked");
		store_close(store);
		_exit(0);
	}
	waitpid(child, &status, 0);
	is(status, 0, "the process ended well");
}

/* Many processes try at once: two processes never have the lock. */
static void
test_crowd(void)
{
	FileStore  *store = fresh("crowd");
	int		   *crowd = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
							 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int			bad = 0;

	must(crowd != MAP_FAILED, "mmap");
	store_close(store);
	for (int i = 0; i < 8; i++)
	{
		if (fork() != 0)
			continue;
		store = open_again();
		for (int j = 0; j < 2000; j++)
		{
			FileResult	result = store_lock(store);

			if (result.outcome == FILE_OK)
			{
				if (__atomic_add_fetch(&crowd[0], 1, __ATOMIC_SEQ_CST) != 1)
					__atomic_add_fetch(&crowd[1], 1, __ATOMIC_SEQ_CST);
				__atomic_add_fetch(&crowd[2], 1, __ATOMIC_SEQ_CST);
				__atomic_sub_fetch(&crowd[0], 1, __ATOMIC_SEQ_CST);
				store_unlock(store);
			}
			else if (result.outcome != FILE_OCCUPIED)
				__atomic_add_fetch(&crowd[1], 1, __ATOMIC_SEQ_CST);
		}
		store_close(store);
		_exit(0);
	}
	for (int i = 0; i < 8; i++)
	{
		int			status;

		wait(&status);
		bad += status != 0;
	}
	is(bad, 0, "eight processes come and go");
	is(crowd[1], 0, "never two at a time");
	ok(crowd[2] > 0, "and some got in");
	diag("%d of 16000 got in", crowd[2]);
	munmap(crowd, 4096);
}

/* Returns the holder if /proc/locks has this text. */
static int
holder_by(FileStore *store, const char *text)
{
	put("locks", text);
	hook.proc_locks = at("locks");
	return store_lock_holder(store);
}

static void
test_holder(void)
{
	FileStore  *store = fresh("holder");
	struct stat st;
	unsigned int high;
	unsigned int low;
	unsigned long long inode;
	char	   *much = palloc(20000);
	int			good = 0;

	must(stat(at(CLAIM), &st) == 0, "stat");
	high = major(st.st_dev);
	low = minor(st.st_dev);
	inode = st.st_ino;

#define LINE(kind, access, pid, high, low, inode) \
	tap_text("1: " kind " ADVISORY  " access " %d %02x:%02x:%llu 0 EOF\n", \
			 pid, high, low, inode)

	is(holder_by(store, ""), 0, "no locks at all");
	is(holder_by(store, LINE ("FLOCK ", "WRITE", 77, high, low, inode)), 77, "the claim");
	is(holder_by(store, LINE ("-> FLOCK ", "WRITE", 77, high, low, inode)), 0, "a waiter");
	is(holder_by(store, LINE ("FLOCK ", "READ ", 77, high, low, inode)), 0, "a shared lock");
	is(holder_by(store, LINE ("POSIX ", "WRITE", 77, high, low, inode)), 0, "a POSIX lock");
	is(holder_by(store, LINE ("OFDLCK", "WRITE", -1, high, low, inode)), 0, "an OFD lock");
	is(holder_by(store, LINE ("FLOCK ", "WRITE", 0, high, low, inode)), 0, "an unseen process");
	is(holder_by(store, LINE ("FLOCK ", "WRITE", 77, high, low, inode + 1)), 0, "another inode");
	is(holder_by(store, LINE ("FLOCK ", "WRITE", 77, high + 1, low, inode)), 0,
	   "the inode on another device");
	if (high == 0)
		skip("a disk takes a major number");
	else
		is(holder_by(store, LINE ("FLOCK ", "WRITE", 77, 0, 40, inode)), 0,
		   "... or on an anonymous one");
	is(holder_by(store, "1: FLOCK  ADVISORY  WRITE 77 <none>:0 0 EOF\n\n\nrubbish\n"), 0,
	   "what is not understood");

	/* as on a file system whose stat() tells a device of its own */
	store_close(store);
	hook.device_is_anonymous = true;
	store = open_again();
	is(holder_by(store, LINE ("FLOCK ", "WRITE", 77, 0, 40, inode)), 77,
	   "anonymous devices: the only one with the inode");
	is(holder_by(store, LINE ("FLOCK ", "WRITE", 77, 8, 1, inode)), 0,
	   "... not on a disk");
	is(holder_by(store, tap_text("%s%s", LINE ("FLOCK ", "WRITE", 77, 0, 40, inode),
								 LINE ("FLOCK ", "WRITE", 78, 0, 41, inode))), 0,
	   "... two: who knows");
	is(holder_by(store, tap_text("%s%s%s", LINE ("FLOCK ", "WRITE", 77, 0, 40, inode),
								 LINE ("FLOCK ", "WRITE", 78, 0, 41, inode),
								 LINE ("FLOCK ", "WRITE", 77, 0, 42, inode))), 0,
	   "... three: still not");
	is(holder_by(store, tap_text("%s%s", LINE ("FLOCK ", "WRITE", 77, 0, 40, inode),
								 LINE ("FLOCK ", "WRITE", 77, 0, 41, inode))), 77,
	   "... one process, twice");
	is(holder_by(store, tap_text("%s%s", LINE ("FLOCK ", "WRITE", 77, 0, 40, inode),
								 LINE ("FLOCK ", "WRITE", 78, 0, 999, inode))), 78,
	   "... the right device before all");
	store_close(store);
	hook.device_is_anonymous = false;
	store = open_again();

	/*
	 * the text is longer than one read, and the line in question is at any
	 * place
	 */
	for (int place = 0; place < 240; place++)
	{
		size_t		len = 0;

		for (int i = 0; i < 240; i++)
			len += sprintf(much + len, "%s", i == place ?
						   LINE ("FLOCK ", "WRITE", 77, high, low, inode) :
						   LINE ("FLOCK ", "WRITE", 1000 + i, high, low, inode + 1));
		good += holder_by(store, much) == 77;
	}
	is(good, 240, "one among many");
	memset(much, '1', 19999);
	much[19999] = '\0';
	is(holder_by(store, much), 0, "a line without end");
	hook.proc_locks = "/nowhere";
	is(store_lock_holder(store), 0, "no /proc/locks");
	hook.proc_locks = NULL;
	pfree(much);
	store_close(store);
}

int
main(void)
{
	int			descriptors;

	begin_scratch("claim_file", 0700, 300);
	signal(SIGPIPE, SIG_IGN);
	descriptors = count_descriptors();

	test_exclusive();
	test_shared();
	test_forked();
	test_no_claim();
	test_kinds();
	test_replaced_while_held();
	test_replaced_meanwhile();
	test_other_file_systems();
	test_many_times();
	test_table();
	test_claim_while_locked();
	test_descriptors();
	test_crowd();
	test_holder();
	is(count_descriptors(), descriptors, "no descriptor is left open");

	clean_up();
	return tap_end();
}
