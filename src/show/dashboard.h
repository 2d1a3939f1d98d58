/*-------------------------------------------------------------------------
 *
 * show/dashboard.h
 *	  cleanup_dashboard(): how the cleaning goes, as a page of HTML.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_DASHBOARD_H
#define AUDIO_CLEANUP_DASHBOARD_H

/*
 * One self-contained page, in ASCII.  Looks at the upload directory as
 * cleanup_status() does; what goes wrong there stands in the page.  Changes
 * nothing.  The result is in the current memory context.
 */
extern char *dashboard_page(void);

#endif							/* AUDIO_CLEANUP_DASHBOARD_H */
