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
 * The kernel resolves the descriptor of a call when the call begins, which may
 * be late: if the descriptor was closed meanwhile, its number may be another
 * folder's.  So whoever closes or fsyncs a folder, or gives the lock of the
 * directory back, calls store_settle() first; and at the end of the store, or
 * of the process, the calls that the kernel has are waited for.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <unistd.h>

#ifdef WITH_LIBURING
#include <liburing.h>
#endif

#ifndef FRONTEND
#include "storage/ipc.h"
#endif

#include "src/store/private.h"

static int
call_plainly(const StoreCall *call)
{
	int			rc = call->name != NULL ? unlinkat(call->fd, call->name, 0) : fsync(call->fd);

	return rc == 0 ? 0 : errno;
}

#ifdef WITH_LIBURING

/* kernel threads of a ring: with 4 an unlink took more than twice as long, with 32 no less */
#define RING_THREADS	16

/* calls that are handed over to the kernel together */
#define RING_QUEUE		64

/* calls that a ring can have: the kernel keeps the results of so many */
#define RING_CALLS		(2 * STORE_TOGETHER)

/*
 * The ring is allocated by malloc(), because a failure must be no ERROR here.
 */
struct StoreRing
{
	struct io_uring uring;
	dlist_node	node;			/* in `rings` */
	dlist_head	calls;			/* calls that are not over */
	int			n_calls;
	int			n_queued;		/* how many of them the kernel does not have
								 * yet */
};

static dlist_head rings = DLIST_STATIC_INIT(rings);


/* ----------
 * Calls of a ring
 * ----------
 */

/*
 * A call that the ring has not done is done by a plain system call, whose
 * outcome counts.  An unlink that has failed is tried again.  An fsync is not,
 * because the kernel reports a failure only once; ECANCELED means that the
 * call has not begun.
 */
static void
end_call(struct StoreRing *ring, StoreCall *call, int errnum)
{
	call->errnum = errnum;
	if (errnum != 0 && (call->name != NULL || errnum == ECANCELED))
		call->errnum = call_plainly(call);
	call->under_way = false;
	dlist_delete(&call->node);
	ring->n_calls--;
}

/*
 * Waits until `n` more of the calls that the kernel has are over, also if
 * signals come meanwhile.  With `forget`, the memory of the calls is not
 * touched any more.
 */
static void
wait_for_kernel(struct StoreRing *ring, int n, bool forget)
{
	struct io_uring_cqe *done;

	while (n > 0)
	{
		/* one wait for all calls, because each wait wakes this process up */
		int			rc = io_uring_wait_cqe_nr(&ring->uring, &done, n);

		for (; io_uring_peek_cqe(&ring->uring, &done) == 0; n--)
		{
			if (!forget)
				end_call(ring, io_uring_cqe_get_data(done), -done->res);
			io_uring_cqe_seen(&ring->uring, done);
		}
		if (rc != 0 && rc != -EINTR)
			pg_usleep(1000);
	}
}

static int
n_in_kernel(const struct StoreRing *ring)
{
	return ring->n_calls - ring->n_queued;
}

/* Hands the queued calls over to the kernel.  Returns false on failure. */
static bool
submit(struct StoreRing *ring)
{
	while (ring->n_queued > 0)
	{
		int			rc = io_uring_submit(&ring->uring);

		if (rc > 0)
			ring->n_queued -= rc;
		else if (rc != -EINTR)
			return false;
	}
	return true;
}

/* Queues the call.  Returns false if the ring does not take the call. */
static bool
queue(struct StoreRing *ring, StoreCall *call)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring->uring);

	if (entry == NULL)
		return false;
	if (call->name != NULL)
		io_uring_prep_unlinkat(entry, call->fd, call->name, 0);
	else
		io_uring_prep_fsync(entry, call->fd, 0);
	io_uring_sqe_set_data(entry, call);
	dlist_push_tail(&ring->calls, &call->node);
	call->under_way = true;
	ring->n_calls++;
	ring->n_queued++;
	return true;
}


/* ----------
 * The ring of a store
 * ----------
 */

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
set_up_ring(struct io_uring *uring)
{
	unsigned int threads[2] = {RING_THREADS, RING_THREADS};

	if (io_uring_queue_init(RING_CALLS / 2, uring, 0) != 0)
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

#ifndef FRONTEND
/*
 * FATAL closes no store.  The locks of the transaction must not be given back
 * before the unlinks are over.
 */
static void
wait_at_exit(int code, Datum arg)
{
	dlist_iter	iter;

	dlist_foreach(iter, &rings)
	{
		struct StoreRing *ring = dlist_container(struct StoreRing, node, iter.cur);

		wait_for_kernel(ring, n_in_kernel(ring), true);
	}
}
#endif

static void
note_ring(struct StoreRing *ring)
{
#ifndef FRONTEND
	static bool registered = false;

	if (!registered)
		before_shmem_exit(wait_at_exit, 0);
	registered = true;
#endif
	dlist_init(&ring->calls);
	ring->n_calls = ring->n_queued = 0;
	dlist_push_tail(&rings, &ring->node);
}

static struct StoreRing *
make_ring(void)
{
	struct StoreRing *ring;

	if (!AcquireExternalFD())
		return NULL;
	ring = malloc(sizeof(*ring));
	if (ring != NULL && set_up_ring(&ring->uring))
	{
		note_ring(ring);
		return ring;
	}
	free(ring);
	ReleaseExternalFD();
	return NULL;
}

void
store_close_ring(FileStore *store)
{
	struct StoreRing *ring = store->ring;

	if (ring == NULL)
		return;
	wait_for_kernel(ring, n_in_kernel(ring), true);
	dlist_delete(&ring->node);
	io_uring_queue_exit(&ring->uring);
	free(ring);
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

/* Ends all calls of a ring that has failed, and does not use a ring again. */
static void
break_ring(FileStore *store)
{
	struct StoreRing *ring = store->ring;
	dlist_mutable_iter iter;

	wait_for_kernel(ring, n_in_kernel(ring), false);
	ring->n_queued = 0;
	dlist_foreach_modify(iter, &ring->calls)
		end_call(ring, dlist_container(StoreCall, node, iter.cur), ECANCELED);
	store_close_ring(store);
	store->no_ring = true;
}

void
store_begin_call(FileStore *store, StoreCall *call, bool alone)
{
	struct StoreRing *ring = alone ? NULL : have_ring(store);

	if (ring == NULL || !queue(ring, call))
		call->errnum = call_plainly(call);
	else if (ring->n_queued < RING_QUEUE)
		;
	else if (!submit(ring))
		break_ring(store);
	else if (n_in_kernel(ring) > RING_CALLS - RING_QUEUE)
		wait_for_kernel(ring, RING_QUEUE, false);
}

/* Waits for the ends of at least `n` calls. */
static void
wait_for_calls(FileStore *store, int n)
{
	if (!submit(store->ring))
		break_ring(store);
	else
		wait_for_kernel(store->ring, n, false);
}

void
store_end_calls(FileStore *store, const StoreCall *calls, int n)
{
	for (;;)
	{
		int			left = 0;

		for (int i = 0; i < n; i++)
			left += calls[i].under_way;
		if (left == 0)
			break;
		wait_for_calls(store, left);
	}
}

void
store_settle(FileStore *store)
{
	if (store->ring != NULL && store->ring->n_calls > 0)
		wait_for_calls(store, store->ring->n_calls);
}

#else							/* !WITH_LIBURING */

void
store_close_ring(FileStore *store)
{
}

void
store_begin_call(FileStore *store, StoreCall *call, bool alone)
{
	call->errnum = call_plainly(call);
}

void
store_end_calls(FileStore *store, const StoreCall *calls, int n)
{
}

void
store_settle(FileStore *store)
{
}

#endif							/* WITH_LIBURING */
