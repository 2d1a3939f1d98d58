/*-------------------------------------------------------------------------
 *
 * show/doctor.h
 *	  cleanup_check(): what is wrong with this installation?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_DOCTOR_H
#define AUDIO_CLEANUP_DOCTOR_H

/* One finding; status is "ok", "warning" or "error"; hint may be NULL. */
typedef void (*DoctorSink) (const char *check, const char *status, const char *detail,
							const char *hint, void *arg);

/* Examine, and report each finding.  Changes nothing. */
extern void doctor_examine(DoctorSink sink, void *arg);

#endif							/* AUDIO_CLEANUP_DOCTOR_H */
