/*-------------------------------------------------------------------------
 *
 * text/template.h
 *	  Builds JSON, and fills templates with escaped values.
 *
 * A template is filled by the functions below; JSON is built by those of
 * json_build.h.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TEMPLATE_H
#define AUDIO_CLEANUP_TEMPLATE_H

#include "utils/jsonb.h"

/*
 * Fills the template with members of the object `values`.  The template is
 * trusted, the values are not.  With `is_html` the template is a page of HTML;
 * without, it is plain text in ASCII: then the result is UTF-8, whatever the
 * database's encoding, and a value cannot add a line.
 *
 *	{{name}}					a text or number; null is nothing.  The value is
 *								escaped for the places where the template may
 *								put it: between tags, or in a quoted attribute.
 *	{{name|count}}				1,234,567
 *	{{name|size}}				bytes: 3.1 GiB
 *	{{name|duration}}			seconds: 4 min 3 s
 *	{{name|s}}					an s, unless the number is 1: file{{files|s}}
 *	{{#name}} ... {{/name}}		for each element of an array; once for a value
 *								that is not empty, zero, false, null or missing
 *	{{^name}} ... {{/name}}		once for a value that is empty, zero, false,
 *								null or missing
 *
 * Within the section of an object, the members of that object hide members of
 * the same name outside.  {{.}} is an element that is not an object.
 * Invisible characters are written as \n, \x1b, \u202e, and characters beyond
 * ASCII as references, so the page means the same in any encoding.  An unknown
 * name is an ERROR.  The result is palloc'd.  Does not need SPI.
 */
extern char *template_fill(const char *template, Jsonb *values, bool is_html);

#endif							/* AUDIO_CLEANUP_TEMPLATE_H */
