/*-------------------------------------------------------------------------
 *
 * pg/role.h
 *	  Acting as another role.
 *
 * None of these functions needs SPI.
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
 * Sets a search_path in which nobody but a superuser can put a name that comes
 * before those of the server.  The caller ends this by AtEOXact_GUC(false, ...)
 * of a level that it has begun.
 */
extern void role_search_plainly(void);

/*
 * Acts as the role `role` in a security-restricted operation with a safe
 * search_path, until role_stop_acting(saved).  After an ERROR in between, the
 * abort of the transaction restores user and settings.  No transaction may be
 * committed in between.
 */
extern void role_act_as(Oid role, ActingAs *saved);
extern void role_stop_acting(const ActingAs *saved);

/* Allows hash joins only, until role_stop_acting(), for working sets without statistics. */
extern void role_join_by_hash(void);

/*
 * Makes statements read strictly, until role_stop_acting(). row_security is
 * off, so a policy that would hide rows is an ERROR, as a damaged page is.
 * Only hash joins are allowed, and no parallel workers.
 */
extern void role_read_strictly(void);

/*
 * Makes statements read strictly, and without indexes, until
 * role_stop_acting(): a corrupt index of somebody's table would hide rows.
 */
extern void role_read_without_indexes(void);

/*
 * Sets the setting `name` to `value` until the GUC nest level of the caller
 * ends.  Raises an ERROR if the value is not valid.
 */
extern void role_set_for_now(const char *name, const char *value);

/*
 * Keeps messages from the client until role_stop_acting() or the end of the
 * subtransaction, except errors and messages of level INFO: code that runs as
 * the current role may tell of rows.  Does nothing if the calling role has the
 * rights of the current role.
 */
extern void role_keep_quiet(void);

#endif							/* AUDIO_CLEANUP_ROLE_H */
