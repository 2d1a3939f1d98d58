/*-------------------------------------------------------------------------
 *
 * show/dashboard.c
 *	  cleanup_dashboard(): the state of the cleaning as a page of HTML.
 *
 * The dashboard has three parts, each readable on its own.  This file looks
 * at the upload directory, as a dry run does. cleanup_dashboard_figures() in
 * the extension's script returns the figures as one object. template.c
 * escapes the figures and puts them into the page dashboard.html, which the
 * Makefile turns into an array of char.
 *
 * Names of files and texts of errors are hostile, and people with rights open
 * the page.  So the page has no script, and a policy that forbids scripts.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/run/report.h"
#include "src/show/show.h"
#include "src/show/dashboard.html.inc"
#include "src/text/json_build.h"
#include "src/text/template.h"


/* -------------------------------------------------------------------- look --- */

void
show_add_findings(JsonBuilder *json, const PlanFindings *found)
{
	json_add_boolean(json, "surveyed", found->surveyed);
	json_add_integer(json, "files_seen", found->files_seen);
	json_add_integer(json, "files_referenced", found->files_referenced);
	json_add_integer(json, "bytes", found->condemned ? found->condemned->bytes : 0);
	json_begin_array(json, "brakes");
	foreach_ptr(const Brake, brake, found->brakes)
	{
		JsonBuilder element;

		json_begin(&element);
		json_add_text(&element, "name", brake->name);
		json_add_text(&element, "message", brake->message);
		json_add_text(&element, "detail", brake->detail);
		json_add_text(&element, "hint", brake->hint);
		json_add_jsonb(json, NULL, json_end(&element));
	}
	json_end_array(json);
}

/*
 * Makes the part of the figures that the report lacks: the brakes with their
 * hints, and the bytes.
 */
static Jsonb *
make_outcome(CleanupPlan *plan, void *arg)
{
	JsonBuilder json;

	progress_begin("sql", true, false);
	plan_check_transaction(plan);
	plan_survey(plan, false);
	plan_advise(plan);

	json_begin(&json);
	show_add_findings(&json, plan_findings(plan));
	json_add_jsonb(&json, "report", report_status(plan));
	return json_end(&json);
}

static void
look_at_directory(void *arg)
{
	Jsonb	  **outcome = arg;

	*outcome = plan_call(CLEAN_ALL, true, false, make_outcome, NULL);
}

static Jsonb *
take_look(void)
{
	TimestampTz began = GetCurrentTimestamp();
	Jsonb	   *outcome = NULL;
	ErrorData  *error = sql_try(look_at_directory, &outcome);
	JsonBuilder json;

	json_begin(&json);
	json_add_decimal(&json, "seconds", (double) (GetCurrentTimestamp() - began) / USECS_PER_SEC, 3);
	json_add_text(&json, "error", error ? error->message : NULL);
	json_add_text(&json, "error_detail", error ? error->detail : NULL);
	json_add_text(&json, "error_hint", error ? error->hint : NULL);
	if (error == NULL)
		json_add_jsonb(&json, "outcome", outcome);
	return json_end(&json);
}


/* ----------------------------------------------------------------- figures --- */

char *
dashboard_page(void)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		figures;
	char	   *result;

	SPI_connect();
	figures = owner_value(extension_lookup(false), SQL_ARGS(SQL_VALUE(JSONBOID, JsonbPGetDatum(take_look()))),
						  "SELECT @extschema@.cleanup_dashboard_figures($1)");
	MemoryContextSwitchTo(caller);
	result = template_fill(dashboard_html, DatumGetJsonbP(figures), true);
	SPI_finish();
	return result;
}
