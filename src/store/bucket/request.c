/*-------------------------------------------------------------------------
 *
 * store/bucket/request.c
 *	  Makes requests to the server of a bucket, and waits for its answers.
 *
 * Requests go in lanes, one request at a time in each lane.  One lane is for
 * bucket_call(); the other lanes are for the next pages of a walk, and for
 * many requests of one kind.
 *
 * If a server says that it is busy, the request is repeated, after a longer
 * time each time.  After that, half as many requests of many are on their way
 * at a time, and one more for each answered request.
 *
 * Waiting serves no interrupts, because no function of a store raises an
 * error.  Waiting ends with EINTR if an interrupt is pending; the caller
 * serves the interrupt.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "common/md5.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/xml.h"

#include "src/pg/compat.h"
#include "src/pg/library.h"
#include "src/pg/snapshot.h"
#include "src/store/bucket/bucket.h"
#include "src/store/bucket/hash.h"

#define STEP_MS		100

/* a busy server is asked again after at most 0.1, 0.2, 0.4 ... seconds, at least half as long */
#define MAX_TRIES	6
#define FIRST_REST_MS	100

int
bucket_note(Bucket *bucket, int errnum, const char *error)
{
	BucketError *slot = bucket->errors;

	while (slot < &bucket->errors[BUCKET_ERRORS] && slot->errnum != errnum)
		slot++;
	if (slot == &bucket->errors[BUCKET_ERRORS])
		slot = &bucket->errors[bucket->next_error++ % BUCKET_ERRORS];
	slot->errnum = errnum;
	if (error == NULL)
		error = strerror(errnum);
	/* `error` may be the text of the slot itself */
	if (slot->text != error)
		strlcpy(slot->text, error, sizeof(slot->text));
	return errnum;
}


/* ---------------------------------------------------------------- encoding --- */

static bool
is_unreserved(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		c == '-' || c == '.' || c == '_' || c == '~';
}

bool
bucket_encode(char *target, size_t size, const char *text, bool is_path)
{
	size_t		length = strlen(target);

	for (; *text != '\0'; text++)
	{
		unsigned char c = *text;
		bool		plain = is_unreserved(c) || (is_path && c == '/');

		if (length + (plain ? 1 : 3) >= size)
			return false;
		if (plain)
			target[length++] = c;
		else
			length += sprintf(target + length, "%%%02X", c);
	}
	target[length] = '\0';
	return true;
}

bool
bucket_encode_query(char *target, size_t size, const BucketParameter *parameters, const char *before)
{
	for (; parameters->name != NULL; parameters++)
	{
		if (parameters->value == NULL)
			continue;
		strlcat(target, before, size);
		strlcat(target, parameters->name, size);
		strlcat(target, "=", size);
		if (!bucket_encode(target, size, parameters->value, false))
			return false;
		before = "&";
	}
	return strlen(target) < size - 1;
}

static bool
make_url(const Bucket *bucket, const BucketCall *call, char url[BUCKET_URL_SIZE])
{
	snprintf(url, BUCKET_URL_SIZE, "%s/", bucket->root);
	return (call->key == NULL || bucket_encode(url, BUCKET_URL_SIZE, call->key, true)) &&
		bucket_encode_query(url, BUCKET_URL_SIZE, call->query, "?");
}

void
bucket_append_element(StringInfo body, const char *name, const char *text)
{
	char	   *escaped = escape_xml(text);

	appendStringInfo(body, "<%s>%s</%s>", name, escaped, name);
	/* there are many in a request, and each takes a kilobyte */
	pfree(escaped);
}

unsigned long long
bucket_random(void)
{
	return pg_prng_uint64(&pg_global_prng_state);
}

/* Returns 0 if the hash fails: then no file is equal to the expected file. */
uint64
bucket_digest(const char *text)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint64		value = 0;

	for (int i = 0; i < 8 && (i > 0 || bucket_hash(PG_SHA256, text, strlen(text), digest, sizeof(digest))); i++)
		value = value << 8 | digest[i];
	return value;
}

bool
bucket_md5_header(const char *body, char header[BUCKET_MD5_SIZE])
{
	static const char name[] = "content-md5: ";
	uint8		digest[MD5_DIGEST_LENGTH];
	int			length;

	if (!bucket_hash(PG_MD5, body, strlen(body), digest, sizeof(digest)))
		return false;
	strlcpy(header, name, BUCKET_MD5_SIZE);
	length = pg_b64_encode((const void *) digest, sizeof(digest), header + strlen(name), BUCKET_MD5_SIZE - (int) strlen(name) - 1);
	if (length < 0)
		return false;
	header[strlen(name) + length] = '\0';
	return true;
}


/* ----------------------------------------------------------------- waiting --- */

static bool
is_interrupted(void)
{
	if (!PostmasterIsAlive())
		proc_exit(1);
	return library_should_stop();
}

/*
 * Gives up the leased requests that are on their way when the lease is over.  A
 * server that has such a request must not carry it out under the lease of
 * another process.
 */
static void
expire_requests(Bucket *bucket)
{
	if (!bucket_lease_is_older(bucket, LEASE_OVER_SECONDS))
		return;
	for (int i = 0; i < BUCKET_FIRST_LANE + bucket->n_parallel; i++)
	{
		BucketLane *lane = &bucket->lanes[i];

		if (!lane->in_flight || !lane->call.leased || bucket->library->answer(bucket->session, lane->number) != NULL)
			continue;
		bucket->library->end(bucket->session, lane->number);
		lane->in_flight = false;
		lane->is_expired = true;
	}
}

/* Works on all requests for `ms` milliseconds at most.  Returns false if an interrupt is pending. */
static bool
step(Bucket *bucket, int ms)
{
	bool		laid_down;

	expire_requests(bucket);
	laid_down = snapshot_lay_down();
	pgstat_report_wait_start(compat_wait_event("AudioCleanupBucket"));
	bucket->library->step(bucket->session, ms);
	pgstat_report_wait_end();
	snapshot_take_up(laid_down);
	return !is_interrupted();
}

/* Returns milliseconds to rest, at random, so that not all clients of a busy server come back at once. */
static int
rest_ms(int try)
{
	int			ms = FIRST_REST_MS << try;

	return ms / 2 + (int) (pg_prng_double(&pg_global_prng_state) * ms / 2);
}

bool
bucket_rest(int try)
{
	return bucket_sleep(rest_ms(try));
}

bool
bucket_sleep(int ms)
{
	bool		laid_down = snapshot_lay_down();
	int			left = ms;

	for (; left > 0 && !is_interrupted(); left -= STEP_MS)
	{
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(left, STEP_MS),
						 compat_wait_event("AudioCleanupBucket"));
	}
	snapshot_take_up(laid_down);
	return left <= 0;
}


/* ----------------------------------------------------------------- answers --- */

/* Returns whether the status tells a success, and the body an error. */
static bool
is_belied(const BucketAnswer *answer)
{
	return answer->status >= 200 && answer->status < 300 && answer->code[0] != '\0';
}

static bool
is_to_be_repeated(Bucket *bucket, const BucketLane *lane, const BucketAnswer *answer)
{
	/*
	 * a server that does not accept the keys has not carried out the request
	 */
	if (bucket_renew_keys(bucket, answer, lane->keys_number))
		return true;
	if (lane->call.once)
		return false;
	return answer->status == 500 || answer->status == 503 || answer->status == 429 || answer->status == 0 ||
		is_belied(answer);
}

/* Returns the errno for an answer that is_answer() does not accept. */
static int
errno_of(const BucketAnswer *answer)
{
	if (is_belied(answer))
		return EAGAIN;
	switch (answer->status)
	{
		case 0:
			return answer->timed_out ? ETIMEDOUT : EIO;
		case 401:
		case 403:
			return EACCES;
		case 404:
			return ENOENT;
		case 429:
		case 503:
			return EAGAIN;
		default:
			return EIO;
	}
}

/*
 * Returns whether the answer is about the object of the request: also that
 * there is none.
 */
static bool
is_answer(const BucketAnswer *answer)
{
	if (answer->status >= 200 && answer->status < 300)
		return !is_belied(answer);
	/* the answer to HEAD has no code */
	return (answer->status == 404 && strcmp(answer->code, "NoSuchBucket") != 0) ||
		answer->status == 409 || answer->status == 412 || answer->status == 501;
}


/* ------------------------------------------------------------------- lanes --- */

/* Returns whether the lane has a call that is not over. */
static bool
is_taken(const BucketLane *lane)
{
	return lane->in_flight || lane->rests || lane->is_expired;
}

static int64
now_ms(void)
{
	return time_monotonic_us() / 1000;
}

static int
note_end_of_lease(Bucket *bucket, int errnum)
{
	return bucket_note(bucket, errnum, "the lease on the bucket ended before the request was over");
}

/*
 * Sends the request of the lane, for the first time or again.  Returns 0 or an
 * errno: EAGAIN if the lease has no time for the request.
 */
static int
send_request(Bucket *bucket, BucketLane *lane)
{
	lane->rests = false;
	if (lane->call.leased && bucket_lease_is_older(bucket, LEASE_SAFE_SECONDS))
		return note_end_of_lease(bucket, EAGAIN);
	lane->keys_number = bucket->keys_number;
	lane->in_flight = bucket->library->begin(bucket->session, lane->number, &lane->request);
	return lane->in_flight ? 0 : bucket_note(bucket, ENOMEM, NULL);
}

int
bucket_begin_call(Bucket *bucket, int number, const BucketCall *call)
{
	BucketLane *lane;
	int			errnum;

	if (bucket->session == NULL)
		return bucket->open_errnum;
	lane = &bucket->lanes[number];
	if (is_taken(lane))
		return bucket_note(bucket, EBUSY, "another request is under way in this lane");
	if ((errnum = bucket_have_keys(bucket)) != 0)
		return errnum;
	if (call->leased && (errnum = bucket_stay_leased(bucket).errnum) != 0)
		return errnum;
	lane->number = number;
	lane->call = *call;
	lane->tries = 0;
	lane->is_expired = false;
	if (!make_url(bucket, call, lane->url))
		return bucket_note(bucket, ENAMETOOLONG, NULL);
	lane->request = (BucketRequest)
	{
		.method = call->method,.url = lane->url,.headers = call->headers,.body = call->body,
			.keys = &bucket->keys,.region = bucket->region,.ca_file = *bucket->ca_file ? bucket->ca_file : NULL,
			.timeout_ms = bucket->timeout_ms,.raw = call->raw,.once = call->once
	};
	return send_request(bucket, lane);
}

void
bucket_drop_call(Bucket *bucket, int number)
{
	BucketLane *lane;

	if (bucket->session == NULL)
		return;
	lane = &bucket->lanes[number];
	if (lane->in_flight)
		bucket->library->end(bucket->session, lane->number);
	lane->in_flight = lane->rests = lane->is_expired = false;
}

/*
 * Takes the answer of a lane, if there is an answer, or repeats the request.
 * Returns true if the lane's call is over, and sets *errnum and *answer as
 * bucket_call() does.
 */
static bool
look_after(Bucket *bucket, BucketLane *lane, int *errnum, const BucketAnswer **answer)
{
	if (lane->rests)
	{
		if (now_ms() < lane->rests_until_ms)
			return false;
		*errnum = send_request(bucket, lane);
		if (*errnum != 0)
			*answer = NULL;
		return *errnum != 0;
	}
	if (lane->is_expired)
	{
		lane->is_expired = false;
		*errnum = note_end_of_lease(bucket, lane->call.once ? ETIMEDOUT : EAGAIN);
		*answer = NULL;
		return true;
	}
	if (!lane->in_flight || (*answer = bucket->library->answer(bucket->session, lane->number)) == NULL)
		return false;
	bucket->library->end(bucket->session, lane->number);
	lane->in_flight = false;
	if (lane->tries < MAX_TRIES - 1 && is_to_be_repeated(bucket, lane, *answer))
	{
		lane->rests = true;
		lane->rests_until_ms = now_ms() + rest_ms(lane->tries++);
		return false;
	}
	if ((*answer)->date != 0)
		bucket->date = (*answer)->date;
	*errnum = is_answer(*answer) ? 0 : bucket_note(bucket, errno_of(*answer), (*answer)->error);
	return true;
}

int
bucket_finish_call(Bucket *bucket, int number, const BucketAnswer **answer)
{
	BucketLane *lane = &bucket->lanes[number];
	int			errnum = EINTR;

	while (!look_after(bucket, lane, &errnum, answer))
	{
		if (step(bucket, STEP_MS))
			continue;
		bucket_drop_call(bucket, number);
		return bucket_note(bucket, EINTR, NULL);
	}
	return errnum;
}

int
bucket_call(Bucket *bucket, const BucketCall *call, const BucketAnswer **answer)
{
	int			errnum = bucket_begin_call(bucket, BUCKET_OWN_LANE, call);

	return errnum == 0 ? bucket_finish_call(bucket, BUCKET_OWN_LANE, answer) : errnum;
}

int
bucket_ask(Bucket *bucket, const BucketCall *call, const BucketAnswer **answer)
{
	int			errnum = bucket_call(bucket, call, answer);

	return errnum == 0 && (*answer)->status != 200 ? bucket_note(bucket, EIO, (*answer)->error) : errnum;
}

int
bucket_copy(Bucket *bucket, const char *key, const char *version, const char *target, bool once,
			const BucketAnswer **answer)
{
	char		source[BUCKET_URL_SIZE];
	const char *const headers[] = {source, NULL};
	const BucketCall call = {.method = "PUT",.key = target,.headers = headers,.once = once};

	snprintf(source, sizeof(source), "x-amz-copy-source: /%s/", bucket->name);
	if (!bucket_encode(source, sizeof(source), key, true) ||
		(version != NULL && (strlcat(source, "?versionId=", sizeof(source)) >= sizeof(source) ||
							 !bucket_encode(source, sizeof(source), version, false))))
		return bucket_note(bucket, ENAMETOOLONG, NULL);
	return bucket_ask(bucket, &call, answer);
}


/* --------------------------------------------------------- many at a time --- */

/* number of portions that may be under way at a time */
#define MOST_UNDER_WAY	3

/* A call that waits in a queue, or is under way in a lane. */
typedef struct QueuedCall
{
	dlist_node	node;
	BucketCalls *calls;			/* its queue */
	BucketCall	call;
	BucketTake	take;
	void	   *arg;
} QueuedCall;

void
bucket_add_call(BucketCalls *calls, const BucketCall *call, BucketTake take, void *arg)
{
	QueuedCall *queued = MemoryContextAlloc(calls->context, sizeof(QueuedCall));

	queued->calls = calls;
	queued->call = *call;
	queued->take = take;
	queued->arg = arg;
	dlist_push_tail(&calls->waiting, &queued->node);
	calls->n_open++;
}

/* The state of bucket_run_pipeline(). */
typedef struct Traffic
{
	Bucket	   *bucket;
	BucketCalls *portions;
	int			n;
	BucketAdvance advance;		/* NULL: the one portion has one stage */
	void	   *arg;
	int			first;			/* all portions before this number are at
								 * their end, */
	int			begun;			/* and all portions from this number on have
								 * not begun */
	QueuedCall **on_its_way;	/* the call of each lane */
	int			width;			/* requests that may be on their way at a time */
	int			busy;			/* lanes that have a call */
	int			rest_ms;		/* until the first lane that rests is to go on */
	bool		answered;		/* a call was over in this round */
	int			keys_errnum;	/* not 0: there were no keys for a call */
} Traffic;

/* Begins the next stage of a portion that has no open call. */
static void
advance_portion(Traffic *traffic, BucketCalls *portion)
{
	while (portion->n_open == 0 && traffic->advance != NULL &&
		   traffic->advance(traffic->arg, (int) (portion - traffic->portions), portion))
		;
}

/* Returns the next call that waits, of the first portions that are not at their end; or NULL. */
static QueuedCall *
next_call(Traffic *traffic)
{
	for (int i = traffic->first; i < traffic->n && i < traffic->first + MOST_UNDER_WAY; i++)
	{
		BucketCalls *portion = &traffic->portions[i];

		if (i == traffic->begun)
		{
			traffic->begun++;
			advance_portion(traffic, portion);
		}
		if (!dlist_is_empty(&portion->waiting))
			return dlist_container(QueuedCall, node, dlist_pop_head_node(&portion->waiting));
		if (portion->n_open == 0 && i == traffic->first)
			traffic->first++;
	}
	return NULL;
}

/* Passes on the outcome of a call.  The next stage may free the call. */
static void
take_outcome(Traffic *traffic, const QueuedCall *queued, int errnum, const BucketAnswer *answer)
{
	BucketCalls *portion = queued->calls;

	queued->take(queued->arg, errnum, answer);
	portion->n_open--;
	advance_portion(traffic, portion);
}

/*
 * Begins a call in a lane.  Returns 0 or an errno.  Keys that cannot be had for
 * one call are not asked for once more for each of the others.
 */
static int
begin_one_of_many(Traffic *traffic, int i, const BucketCall *call)
{
	if (traffic->keys_errnum == 0)
		traffic->keys_errnum = bucket_have_keys(traffic->bucket);
	return traffic->keys_errnum != 0 ? traffic->keys_errnum :
		bucket_begin_call(traffic->bucket, BUCKET_FIRST_LANE + i, call);
}

/* Begins calls in free lanes.  Returns 0 or an errno. */
static int
fill_lanes(Traffic *traffic)
{
	Bucket	   *bucket = traffic->bucket;
	QueuedCall *queued;

	for (int i = 0; i < bucket->n_parallel && traffic->busy < traffic->width; i++)
		while (!is_taken(&bucket->lanes[BUCKET_FIRST_LANE + i]) && (queued = next_call(traffic)) != NULL)
		{
			int			errnum = begin_one_of_many(traffic, i, &queued->call);

			if (errnum == ENOMEM || errnum == EINTR)
				return errnum;
			if (errnum != 0)
			{
				take_outcome(traffic, queued, errnum, NULL);
				continue;
			}
			traffic->on_its_way[i] = queued;
			traffic->busy++;
		}
	return 0;
}

static void
look_after_lane(Traffic *traffic, int i)
{
	Bucket	   *bucket = traffic->bucket;
	BucketLane *lane = &bucket->lanes[BUCKET_FIRST_LANE + i];
	bool		rested = lane->rests;
	const BucketAnswer *answer;
	int			errnum;

	if (look_after(bucket, lane, &errnum, &answer))
	{
		traffic->busy--;
		traffic->answered = true;
		if (errnum == EAGAIN)
			traffic->width = Max(traffic->width / 2, 1);
		else if (errnum == 0)
			traffic->width = Min(traffic->width + 1, bucket->n_parallel);
		take_outcome(traffic, traffic->on_its_way[i], errnum, answer);
	}
	else if (lane->rests)
	{
		if (!rested)
			traffic->width = Max(traffic->width / 2, 1);
		traffic->rest_ms = (int) Min(traffic->rest_ms, Max(lane->rests_until_ms - now_ms(), 1));
	}
}

/* Frees the lanes of many calls: at the end, and after an ERROR that has left some taken. */
static void
free_lanes(Bucket *bucket)
{
	for (int i = 0; i < bucket->n_parallel; i++)
		bucket_drop_call(bucket, BUCKET_FIRST_LANE + i);
}

static bool
is_all_taken(const Traffic *traffic)
{
	for (int i = 0; i < traffic->n; i++)
		if (i >= traffic->begun || traffic->portions[i].n_open > 0)
			return false;
	return true;
}

static int
run(Traffic *traffic)
{
	Bucket	   *bucket = traffic->bucket;
	int			errnum;

	if (bucket->session == NULL)
		return bucket->open_errnum;
	free_lanes(bucket);
	traffic->width = bucket->n_parallel;
	traffic->on_its_way = palloc0(sizeof(QueuedCall *) * bucket->n_parallel);
	while ((errnum = fill_lanes(traffic)) == 0 && traffic->busy > 0)
	{
		traffic->answered = false;
		traffic->rest_ms = STEP_MS;
		for (int i = 0; i < bucket->n_parallel; i++)
			look_after_lane(traffic, i);
		if (!traffic->answered && !step(bucket, traffic->rest_ms))
		{
			errnum = bucket_note(bucket, EINTR, NULL);
			break;
		}
	}
	if (errnum == 0 && !is_all_taken(traffic))
		errnum = bucket_note(bucket, EIO, "not all requests were made");
	free_lanes(bucket);
	pfree(traffic->on_its_way);
	return errnum;
}

int
bucket_call_many(Bucket *bucket, BucketCalls *calls)
{
	Traffic		traffic = {bucket, calls, 1,.begun = 1};

	return run(&traffic);
}

/*
 * A portion needs the answers of one stage before the next stage can begin.
 * If one portion came after the other, lanes would be idle whenever the last
 * requests of a stage are on their way.  So an idle lane serves the next
 * portion.
 */
int
bucket_run_pipeline(Bucket *bucket, int n, BucketAdvance advance, void *arg)
{
	Traffic		traffic = {bucket, palloc0(sizeof(BucketCalls) * Max(n, 1)), n, advance, arg};
	int			errnum = run(&traffic);

	pfree(traffic.portions);
	return errnum;
}

int
bucket_fetch(Bucket *bucket, const BucketRequest *request, const BucketAnswer **answer)
{
	const BucketLibrary *library = bucket->library;
	bool		stopped = false;

	*answer = NULL;
	if (!library->begin(bucket->session, BUCKET_KEY_LANE, request))
		return bucket_note(bucket, ENOMEM, NULL);
	while (!stopped && (*answer = library->answer(bucket->session, BUCKET_KEY_LANE)) == NULL)
		stopped = !step(bucket, STEP_MS);
	library->end(bucket->session, BUCKET_KEY_LANE);
	return stopped ? bucket_note(bucket, EINTR, NULL) : 0;
}
