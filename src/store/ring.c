/*-------------------------------------------------------------------------
 *
 * store/ring.c
 *	  Several unlinks or fsyncs at a time, by io_uring.
 *
 * An unlink waits for the journal, for a block that a commit is writing, for
 * an inode that must be read.  Several unlinks at a time wait together, and
 * the space of their files is freed on several processors.  Each of several
 * fsyncs would wait for a flush of the disk; together the fsyncs wait for one
 * flush.
 *
 * io_uring may be missing from the build (without liburing) or from the kernel
 * (before 5.11), or be forbidden by kernel.io_uring_disabled or by the sandbox
 * of a container.  The first call finds out, and then plain system calls do
 * the work.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <unistd.h>

#ifdef WITH_LIBURING
#include <liburing.h>
#endif

#include "src/store/private.h"

#ifdef WITH_LIBURING

/* kernel threads of a ring: with 4 an unlink took more than twice as long, with 32 no less */
#define RING_THREADS	16

/*
 * The ring is allocated by malloc(), because a failure must be no ERROR here.
 */
struct StoreRing
{
	struct io_uring uring;
};

static bool
can_unlink(struct io_uring *uring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
	bool		can = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_UNLINKAT);

	if (probe != NULL)
		io_uring_free_probe(probe);
	return can;
}

/* Returns false if there can be no ring. */
static bool
set_up(struct io_uring *uring)
{
	unsigned int threads[2] = {RING_THREADS, RING_THREADS};

	if (io_uring_queue_init(STORE_TOGETHER, uring, 0) != 0)
		return false;
	if (!can_unlink(uring))
	{
		io_uring_queue_exit(uring);
		return false;
	}

	/*
	 * from Linux 5.15 on; before, the number of threads follows that of
	 * processors
	 */
	(void) io_uring_register_iowq_max_workers(uring, threads);
	return true;
}

static struct StoreRing *
make_ring(void)
{
	struct StoreRing *ring;

	if (!AcquireExternalFD())
		return NULL;
	ring = malloc(sizeof(*ring));
	if (ring != NULL && set_up(&ring->uring))
		return ring;
	free(ring);
	ReleaseExternalFD();
	return NULL;
}

void
store_close_ring(FileStore *store)
{
	if (store->ring == NULL)
		return;
	io_uring_queue_exit(&store->ring->uring);
	free(store->ring);
	store->ring = NULL;
	ReleaseExternalFD();
}

/*
 * Returns the ring, which the first call makes; NULL if no ring can be made.
 */
static struct StoreRing *
have_ring(FileStore *store)
{
	if (store->ring == NULL && !store->no_ring)
	{
		store->ring = make_ring();
		store->no_ring = store->ring == NULL;
	}
	return store->ring;
}

/*
 * Hands the calls over to the kernel.  Returns the number of calls that were
 * taken, counted from the first call.
 */
static int
submit(struct io_uring *uring, StoreCall *calls, int n)
{
	int			submitted = 0;
	int			rc;
	int			i;

	for (i = 0; i < n; i++)
	{
		struct io_uring_sqe *entry = io_uring_get_sqe(uring);

		if (entry == NULL)
			break;
		if (calls[i].name != NULL)
			io_uring_prep_unlinkat(entry, calls[i].fd, calls[i].name, 0);
		else
			io_uring_prep_fsync(entry, calls[i].fd, 0);
		io_uring_sqe_set_data(entry, &calls[i]);
	}
	while (submitted < i)
	{
		rc = io_uring_submit(uring);
		if (rc > 0)
			submitted += rc;
		else if (rc != -EINTR)
			break;
	}
	return submitted;
}

/* Waits for the end of `n` calls, also if signals come meanwhile.  Returns false on failure. */
static bool
collect(struct io_uring *uring, int n)
{
	struct io_uring_cqe *done;
	int			rc;

	/* one wait for all calls, because each wait wakes this process up */
	do
		rc = io_uring_wait_cqe_nr(uring, &done, n);
	while (rc == -EINTR);
	if (rc != 0)
		return false;
	for (; n > 0 && io_uring_peek_cqe(uring, &done) == 0; n--)
	{
		((StoreCall *) io_uring_cqe_get_data(done))->errnum = -done->res;
		io_uring_cqe_seen(uring, done);
	}
	return n == 0;
}

/*
 * A ring that has failed may still hold a call, so the ring is not used again.
 */
static void
call_by_ring(FileStore *store, StoreCall *calls, int n)
{
	struct StoreRing *ring = have_ring(store);
	int			submitted;

	if (ring == NULL)
		return;
	submitted = submit(&ring->uring, calls, n);
	if (!collect(&ring->uring, submitted) || submitted < n)
	{
		store_close_ring(store);
		store->no_ring = true;
	}
}

#else							/* !WITH_LIBURING */

void
store_close_ring(FileStore *store)
{
}

static void
call_by_ring(FileStore *store, StoreCall *calls, int n)
{
}

#endif							/* WITH_LIBURING */

static int
call_plainly(const StoreCall *call)
{
	int			rc = call->name != NULL ? unlinkat(call->fd, call->name, 0) : fsync(call->fd);

	return rc == 0 ? 0 : errno;
}

/*
 * Returns whether the plain call is to be tried.  An unlink that has failed
 * may be tried again.  An fsync may not, because the kernel reports a failure
 * only once; ECANCELED means that the call has not begun.
 */
static bool
is_undone(const StoreCall *call)
{
	return call->errnum != 0 && (call->name != NULL || call->errnum == ECANCELED);
}

/*
 * A call that the ring has not done is done by a plain system call, whose
 * outcome counts.
 */
void
store_call_together(FileStore *store, StoreCall *calls, int n)
{
	for (int i = 0; i < n; i++)
		calls[i].errnum = ECANCELED;
	if (n > 1)
		call_by_ring(store, calls, n);
	for (int i = 0; i < n; i++)
		if (is_undone(&calls[i]))
			calls[i].errnum = call_plainly(&calls[i]);
}
