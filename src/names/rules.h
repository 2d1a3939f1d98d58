/*-------------------------------------------------------------------------
 *
 * names/rules.h
 *	  What the settings say of names.
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
	int			n_extensions;	/* 0: any file may be cleaned */
	char	  **extensions;		/* lower case, without the dot */
	int			n_suffixes;
	char	  **suffixes;		/* case folded, as in "_processed" */
	int			n_prefixes;
	char	  **prefixes;		/* case folded, as in "thumb_" */
	int			n_folders;		/* 0: a folder is nothing but a folder */
	char	  **folders;		/* case folded: names of manifests, as in
								 * "index.m3u8", and what may follow the id in
								 * the name of its folder, as in "_hls" */
	bool		utf8;			/* are names UTF-8 (else: bytes)? */
	const char *upload_dir;		/* where the files are, for KEY_STRICT_MATCH;
								 * NULL: anywhere */
};

#endif							/* AUDIO_CLEANUP_NAME_RULES_H */
