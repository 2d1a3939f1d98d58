/*-------------------------------------------------------------------------
 *
 * names/rules.h
 *	  The settings about names.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_NAME_RULES_H
#define AUDIO_CLEANUP_NAME_RULES_H

typedef struct KeyRules KeyRules;

struct KeyRules
{
	int			n_extensions;	/* 0: a file with any extension may be cleaned */
	char	  **extensions;		/* in lower case, without the dot */
	int			n_suffixes;
	char	  **suffixes;		/* case folded, as in "_processed" */
	int			n_prefixes;
	char	  **prefixes;		/* case folded, as in "thumb_" */
	int			n_folders;		/* 0: no folder belongs to a file */
	char	  **folders;		/* case folded: names of manifests, as in
								 * "index.m3u8", and suffixes behind the id in
								 * the name of a folder, as in "_hls" */
	bool		utf8;			/* names are UTF-8 (else: bytes) */
	const char *upload_dir;		/* directory of the files, for
								 * KEY_STRICT_MATCH; NULL: any */
};

#endif							/* AUDIO_CLEANUP_NAME_RULES_H */
