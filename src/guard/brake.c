/*-------------------------------------------------------------------------
 *
 * guard/brake.c
 *	  A reason why nothing may be deleted now.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/guard/brake.h"

Brake *
brake_make(const char *name, int sqlstate, const char *message, const char *detail,
		   const char *hint)
{
	const Brake texts = {name, sqlstate, message, detail, hint};
	Brake	   *brake = palloc(sizeof(Brake));

	*brake = texts;
	return brake;
}

void
brake_raise(const Brake *brake)
{
	ereport(ERROR,
			(errcode(brake->sqlstate),
			 errmsg_internal("%s", brake->message),
			 brake->detail ? errdetail_internal("%s", brake->detail) : 0,
			 brake->hint ? errhint("%s", brake->hint) : 0));
}

void
brake_raise_if(const Brake *brake)
{
	if (brake != NULL)
		brake_raise(brake);
}

char *
brake_text(const Brake *brake)
{
	char	   *text = psprintf("%s: %s", brake->name, brake->message);

	if (brake->detail)
		text = psprintf("%s. %s", text, brake->detail);
	if (brake->hint)
		text = psprintf("%s%s %s", text, brake->detail ? "" : ".", brake->hint);
	return text;
}
