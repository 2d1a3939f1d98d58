/*-------------------------------------------------------------------------
 *
 * text/template.h
 *	  Filling a template with values: nothing gets in unescaped.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TEMPLATE_H
#define AUDIO_CLEANUP_TEMPLATE_H

#include "utils/jsonb.h"

/*
 * Fill the template of HTML, which is trusted, with members of `values`, an object,
 * which is not.
 *
 *	{{name}}					a text or number; null is nothing.  Escaped, so
 *								that it is text wherever the template puts it:
 *								between tags or in a quoted attribute.
 *	{{name|count}}				1,234,567
 *	{{name|size}}				bytes: 3.1 GiB
 *	{{name|duration}}			seconds: 4 min 3 s
 *	{{name|s}}					an s, unless it is one: file{{files|s}}
 *	{{#name}} ... {{/name}}		for each element of an array; once for a value
 *								that is not empty, zero, false, null or missing
 *	{{^name}} ... {{/name}}		once for one that is
 *
 * In a section of an object its members come before those outside.  {{.}} is
 * an element that is no object.  Characters that cannot be seen are written as
 * \n, \x1b, \u202e, those beyond ASCII as references, so the page means the
 * same in any encoding.  An unknown name is an ERROR.  The result is palloc'd.
 */
extern char *template_fill(const char *page, Jsonb *values);

/*
 * Fills a template of plain text, in ASCII, likewise: the result is UTF-8,
 * whatever the database's encoding, and a value adds no line to it.
 */
extern char *template_fill_text(const char *text, Jsonb *values);

#endif							/* AUDIO_CLEANUP_TEMPLATE_H */
