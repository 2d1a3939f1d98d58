/*-------------------------------------------------------------------------
 *
 * pg/base.h
 *	  What a file includes first that is compiled for the server, and outside
 *	  of the server for a unit test.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BASE_H
#define AUDIO_CLEANUP_BASE_H

#ifdef FRONTEND
#include "postgres_fe.h"

#include "common/fe_memutils.h"
#else
#include "postgres.h"
#endif

#endif							/* AUDIO_CLEANUP_BASE_H */
