/*-------------------------------------------------------------------------
 *
 * store/bucket/options.h
 *	  How a bucket is reached: the server's settings audio_cleanup.s3_*.
 *
 * The definitions in settings.c point at these variables, which hold no
 * secret.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BUCKET_OPTIONS_H
#define AUDIO_CLEANUP_BUCKET_OPTIONS_H

typedef struct BucketOptions
{
	char	   *endpoint;		/* "https://host[:port]"; "": the endpoint of
								 * AWS in the region */
	char	   *region;
	bool		path_style;		/* the bucket in the path, not in the host */
	char	   *credentials_file;	/* "": the environment of the postmaster */
	char	   *ca_file;		/* "": the system's certificates */
	int			timeout_ms;		/* of one request */
	bool		metadata_service;	/* the metadata service of the machine may
									 * be asked for keys */
	int			requests;		/* requests of many at a time, at most */
} BucketOptions;

extern BucketOptions bucket_options;

/* Returns NULL, or what is wrong with an endpoint: a sentence for a detail. */
extern const char *bucket_judge_endpoint(const char *endpoint);

#endif							/* AUDIO_CLEANUP_BUCKET_OPTIONS_H */
