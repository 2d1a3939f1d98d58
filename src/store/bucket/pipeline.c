/*-------------------------------------------------------------------------
 *
 * store/bucket/pipeline.c
 *	  Portions of files go through stages of requests, several portions at a
 *	  time.
 *
 * A portion needs the answers of one stage before the next stage can begin.
 * If one portion came after the other, lanes would be idle whenever the last
 * requests of a stage are on their way.  So an idle lane serves the next
 * portion.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/store/bucket/bucket.h"

/* number of portions that may be under way at a time */
#define MOST_UNDER_WAY	3

typedef struct Running
{
	BucketAdvance advance;
	void	   *arg;
	int			n;				/* portions */
	BucketCalls *stages;		/* calls of each portion; is_over is NULL
								 * before the first stage and behind the last
								 * stage */
	int			first;			/* all portions before this number are at
								 * their end, */
	int			begun;			/* and all portions from this number on have
								 * not begun */
	int		   *owner;			/* the portion that a lane serves */
} Running;

static void
advance_portion(Running *running, int portion)
{
	BucketCalls *stage = &running->stages[portion];

	memset(stage, 0, sizeof(*stage));
	if (!running->advance(running->arg, portion, stage))
		stage->is_over = NULL;
}

/*
 * Gives the lane a call of this portion, and begins a further stage of the
 * portion if necessary.  Returns false if the portion has no call now.
 */
static bool
serve(Running *running, int portion, int lane, BucketCall *call)
{
	const BucketCalls *stage = &running->stages[portion];

	while (stage->is_over != NULL)
	{
		/* a stage that had no call may have begun to fill one */
		memset(call, 0, sizeof(*call));
		if (stage->next(stage->arg, lane, call))
		{
			running->owner[lane] = portion;
			return true;
		}
		if (!stage->is_over(stage->arg))
			return false;
		advance_portion(running, portion);
	}
	return false;
}

static bool
next_call(void *arg, int lane, BucketCall *call)
{
	Running    *running = arg;

	for (int portion = running->first; portion < running->n && portion < running->first + MOST_UNDER_WAY; portion++)
	{
		if (portion == running->begun)
		{
			running->begun++;
			advance_portion(running, portion);
		}
		if (serve(running, portion, lane, call))
			return true;
		if (portion == running->first && running->stages[portion].is_over == NULL)
			running->first++;
	}
	return false;
}

static void
take_portion_answer(void *arg, int lane, int errnum, const BucketAnswer *answer)
{
	const Running *running = arg;
	const BucketCalls *stage = &running->stages[running->owner[lane]];

	stage->take(stage->arg, lane, errnum, answer);
}

int
bucket_run_pipeline(Bucket *bucket, int n, BucketAdvance advance, void *arg)
{
	Running		running = {advance, arg, n};
	const BucketCalls calls = {next_call, take_portion_answer, NULL, &running};
	int			errnum;

	running.stages = palloc0(sizeof(BucketCalls) * Max(n, 1));
	running.owner = palloc0(sizeof(int) * bucket->n_parallel);
	errnum = bucket_call_many(bucket, &calls);
	if (errnum == 0 && running.first < n)
		errnum = bucket_note(bucket, EIO, "not all requests were made");
	pfree(running.stages);
	pfree(running.owner);
	return errnum;
}
