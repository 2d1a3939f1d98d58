/*-------------------------------------------------------------------------
 *
 * pg/shmem.c
 *	  Pieces of shared memory, for a library that is preloaded.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "src/pg/extension.h"
#include "src/pg/shmem.h"

typedef struct Piece
{
	const char *name;
	Size		size;
	void		(*attach) (void *memory, bool is_new);
} Piece;

static Piece pieces[2];
static int	n_pieces = 0;
static shmem_request_hook_type next_request_hook;
static shmem_startup_hook_type next_startup_hook;

static void
request(void)
{
	if (next_request_hook != NULL)
		next_request_hook();
	for (int i = 0; i < n_pieces; i++)
		RequestAddinShmemSpace(MAXALIGN(pieces[i].size));
	RequestNamedLWLockTranche(EXTENSION_NAME, 1);
}

static void
attach(void)
{
	if (next_startup_hook != NULL)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < n_pieces; i++)
	{
		bool		found;
		void	   *memory = ShmemInitStruct(pieces[i].name, pieces[i].size, &found);

		pieces[i].attach(memory, !found);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
shmem_request(const char *name, Size size, void (*attach_piece) (void *memory, bool is_new))
{
	const Piece piece = {name, size, attach_piece};

	Assert(n_pieces < lengthof(pieces));
	if (n_pieces == 0)
	{
		next_request_hook = shmem_request_hook;
		shmem_request_hook = request;
		next_startup_hook = shmem_startup_hook;
		shmem_startup_hook = attach;
	}
	pieces[n_pieces++] = piece;
}
