/*-------------------------------------------------------------------------
 *
 * pg/role.h
 *	  Acting as another role.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_ROLE_H
#define AUDIO_CLEANUP_ROLE_H

typedef struct ActingAs
{
	Oid			user;
	int			security_context;
	int			guc_level;
} ActingAs;

/*
 * Acts as `role` in a security-restricted operation with a safe search_path,
 * until role_stop_acting().  An ERROR in between needs no clean-up:
 * transaction abort restores user and settings.  No transaction may be
 * committed in between.
 */
extern void role_act_as(Oid role, ActingAs *saved);
extern void role_stop_acting(const ActingAs *saved);

/* Allows hash joins only, while acting: for working sets without statistics. */
extern void role_join_by_hash(void);

/*
 * Lets statements read carefully, while acting: no index may answer for a
 * table (a corrupt one would hide rows), row_security off (a policy that would
 * hide rows is an error), and hash joins only.
 */
extern void role_read_carefully(void);

/* Sets the setting `name` until the GUC nest level of the caller ends. */
extern void role_set_for_now(const char *name, const char *value);

#endif							/* AUDIO_CLEANUP_ROLE_H */
