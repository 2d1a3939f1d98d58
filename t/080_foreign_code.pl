# Code of a source's owner, of a type's owner and of whoever else: it runs with
# no rights but its owner's, leaves nothing behind, and often does not run.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('foreign_code');
my $dir = upload_dir($node);
put_files($dir, 'wanted.mp3');
$node->safe_psql('postgres', q{
	CREATE EXTENSION audio_cleanup;
	CREATE ROLE app LOGIN; CREATE ROLE reporting LOGIN;
	GRANT CREATE ON DATABASE postgres TO app;
	CREATE SCHEMA app AUTHORIZATION app;
	GRANT USAGE ON SCHEMA app TO reporting;
	CREATE SCHEMA reporting AUTHORIZATION reporting;
	GRANT USAGE ON SCHEMA reporting TO app;
});

sub as
{
	my ($role, $sql) = @_;
	return $node->safe_psql('postgres', "SET ROLE $role; $sql");
}

sub blocked
{
	my ($name, $reason, $hint) = @_;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT cleanup_all(force => true)");
	my $answer = sql_json($node, 'SELECT cleanup_status()');

	isnt($rc, 0, "$name: a run is refused");
	like($stderr, $reason, "$name: with the reason");
	like($stderr, $hint, "$name: and a hint") if $hint;
	ok(!$answer->{success}, "$name: so says a preview");
	like($answer->{potential_cleanup}{errors}[0], $reason, "$name: with the reason");
	return;
}

sub not_registered
{
	my ($name, $source, $reason) = @_;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT cleanup_add_source('$source')");

	isnt($rc, 0, "$name: refused at registration");
	like($stderr, $reason, "$name: with the reason");
	return;
}

sub forget
{
	my ($source) = @_;
	$node->safe_psql('postgres', "SELECT cleanup_drop_source('$source')");
	return;
}

# ---- a column's type: its casts, operators and constraints do not run ----

as('app', q{
	CREATE TYPE app.st AS ENUM ('processed', 'failed');
	CREATE DOMAIN app.stamp AS timestamp;
	CREATE DOMAIN app.file AS text;
	CREATE TABLE app.sessions (id int PRIMARY KEY, audio_url app.file, status app.st, updated_at app.stamp);
	INSERT INTO app.sessions VALUES (1, 'wanted.mp3', 'processed', '2024-01-01'), (2, 'dead.mp3', 'failed', '2024-01-01');
	CREATE FUNCTION app.ran(app.st) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'a cast ran'; END$$;
	CREATE FUNCTION app.ran_too(app.st, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'an operator ran'; END$$;
	CREATE FUNCTION app.fails() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'a domain ran'; END$$;
});
$node->safe_psql('postgres', q{SELECT cleanup_add_source('app.sessions')});
as('app', q{
	CREATE CAST (app.st AS text) WITH FUNCTION app.ran(app.st) AS IMPLICIT;
	CREATE OPERATOR app.= (LEFTARG = app.st, RIGHTARG = text, FUNCTION = app.ran_too);
	ALTER DOMAIN app.file ADD CHECK (app.fails()) NOT VALID;
	ALTER DOMAIN app.stamp ADD CHECK (app.fails()) NOT VALID;
});
put_file($dir, 'dead.mp3');
is_deeply(sql_json($node, 'SELECT cleanup_all()')->{result}{failed_sessions_cleaned}, [2], 'no cast, operator or domain of a column runs');
wait_for_drain($node);
is_deeply([ sort keys %{ visible_files($dir) } ], ['wanted.mp3'], 'a status of an enum is understood all the same');
forget('app.sessions');
as('app', 'DROP TABLE app.sessions');

# ---- a view's code: nothing that it does is left ----

as('app', q{
	CREATE TABLE app.files (id int PRIMARY KEY, file_name text);
	INSERT INTO app.files VALUES (1, 'wanted.mp3');
	CREATE TABLE app.log (what text);
	CREATE SEQUENCE app.seq;
	CREATE TABLE app.told (what text);
	CREATE FUNCTION app.tries(what text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE what;
	EXCEPTION WHEN OTHERS THEN NULL;
	END $$;
	CREATE FUNCTION app.evil() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM app.tries(what) FROM unnest(ARRAY[
			'INSERT INTO app.log VALUES (current_user)',
			'SET transaction_read_only = off',
			'SET LOCAL transaction_read_only = off',
			$q$SELECT set_config('transaction_read_only', 'off', false)$q$,
			'INSERT INTO app.log VALUES (current_user)',
			'CREATE TABLE app.made (a int)',
			'CREATE TEMP TABLE made (a int)',
			'ALTER SCHEMA app RENAME TO gone',
			'ALTER TABLE app.log RENAME TO gone',
			'DROP TABLE app.told',
			$q$SELECT nextval('app.seq')$q$,
			$q$SELECT set_config('search_path', 'app', false)$q$,
			$q$SELECT set_config('work_mem', '64kB', false)$q$,
			$q$SELECT set_config('row_security', 'on', false)$q$,
			$q$SELECT pg_notify('told', 'by ' || current_user)$q$,
			'SELECT lo_create(4711)',
			'SELECT pg_advisory_xact_lock(4711)',
			'LOCK TABLE app.told IN ACCESS SHARE MODE',
			'LOCK TABLE app.told IN ACCESS EXCLUSIVE MODE',
			'SET SESSION AUTHORIZATION postgres',
			'RESET ROLE'
		]) what;
		RETURN true;
	END $$;
	CREATE VIEW app.watched AS SELECT id, file_name FROM app.files WHERE app.evil();
});
$node->safe_psql('postgres', q{SELECT cleanup_add_source('app.watched')});
{
	my $before = $node->safe_psql('postgres', q{SELECT current_setting('search_path'), current_setting('work_mem')});
	my $session = $node->background_psql('postgres');

	foreach my $call ('SELECT cleanup_status()', 'SELECT cleanup_all()', q{SELECT cleanup_explain('wanted.mp3')}, 'SELECT count(*) FROM cleanup_missing_files()')
	{
		$session->query_safe("LISTEN told; BEGIN; $call;");
		is($session->query_safe(q{SELECT current_setting('search_path') || '|' || current_setting('work_mem')}), $before, "$call: settings are as before");
		is($session->query_safe(q{SELECT current_setting('transaction_read_only')}), 'off', "$call: the transaction can write");
		is($session->query_safe(q{SELECT coalesce(string_agg(locktype || ' ' || coalesce(relation, 0)::regclass || ' ' || mode || coalesce(objid, 0), ', '), '') FROM pg_locks WHERE pid = pg_backend_pid() AND (locktype = 'advisory' OR relation = 'app.told'::regclass)}),
			'', "$call: no lock of the view's code is left");
		$session->query_safe('COMMIT;');
		unlike($session->query_safe('SELECT 1'), qr/told/, "$call: no notification is sent");
	}
	$session->quit;
	is($node->safe_psql('postgres', q{SELECT count(*) FROM app.log}), 0, 'no row of a view\'s code is left');
	is($node->safe_psql('postgres', q{SELECT is_called FROM app.seq}), 'f', 'no sequence has moved');
	is($node->safe_psql('postgres', q{SELECT to_regclass('app.made') IS NULL AND to_regclass('app.told') IS NOT NULL
		AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)}), 't', 'nor any other object changed');
}
forget('app.watched');

# ---- sources of a superuser ----

$node->safe_psql('postgres', 'CREATE VIEW public.over_app AS SELECT id, file_name FROM app.files');
not_registered('a superuser\'s view of another\'s table', 'over_app',
	qr/42501: .*source public\.over_app of role "\w+" reads app\.files, which belongs to role "app".*HINT:  Give the source to that role: ALTER VIEW public\.over_app OWNER TO app\./s);
$node->safe_psql('postgres', q{GRANT CREATE ON SCHEMA public TO app; ALTER VIEW over_app OWNER TO app; SELECT cleanup_add_source('over_app')});
ok(sql_json($node, 'SELECT cleanup_all()')->{success}, 'what the hint advises works');
forget('over_app');
$node->safe_psql('postgres', 'DROP VIEW over_app');

$node->safe_psql('postgres', q{CREATE TABLE mine (id int PRIMARY KEY, file_name text); INSERT INTO mine VALUES (1, 'wanted.mp3');
	CREATE VIEW over_mine AS SELECT id, file_name FROM mine; SELECT cleanup_add_source('over_mine'); ALTER TABLE mine OWNER TO app});
blocked('a table given away afterwards', qr/reads public\.mine, which belongs to role "app"/, qr/HINT:  Give the source to that role/);
$node->safe_psql('postgres', q{ALTER TABLE mine OWNER TO CURRENT_USER});
ok(sql_json($node, 'SELECT cleanup_all()')->{success}, 'and taken back');
as('app', q{CREATE FUNCTION app.harmless(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'});
$node->safe_psql('postgres', q{CREATE OR REPLACE VIEW over_mine AS SELECT id, app.harmless(file_name) AS file_name FROM mine});
blocked('a function of somebody else', qr/runs function app\.harmless\(pg_catalog\.text\), which belongs to role "app"|runs function app\.harmless\(text\), which belongs to role "app"/);
forget('over_mine');
$node->safe_psql('postgres', q{DROP VIEW over_mine; CREATE INDEX ON mine (app.harmless('x'))});
not_registered('a function of somebody else in an index', 'mine', qr/runs function app\.harmless/);
$node->safe_psql('postgres', 'DROP TABLE mine');
$node->safe_psql('postgres', q{CREATE TABLE mine (id int PRIMARY KEY, file_name text) PARTITION BY LIST (id); CREATE TABLE mine_1 PARTITION OF mine DEFAULT;
	INSERT INTO mine VALUES (1, 'wanted.mp3'); ALTER TABLE mine_1 OWNER TO app});
not_registered('a partition of somebody else', 'mine', qr/reads public\.mine_1, which belongs to role "app"/);
$node->safe_psql('postgres', 'DROP TABLE mine');

# ---- sources of others: no code of a third ----

as('app', 'GRANT SELECT ON app.files TO reporting; CREATE FUNCTION app.one() RETURNS boolean LANGUAGE sql AS $$SELECT true$$');
as('reporting', 'CREATE VIEW reporting.files AS SELECT id, file_name FROM app.files');
$node->safe_psql('postgres', q{SELECT cleanup_add_source('reporting.files')});
ok(sql_json($node, 'SELECT cleanup_all()')->{success}, 'a view of another\'s table is no matter without rights');
as('reporting', 'CREATE OR REPLACE VIEW reporting.files AS SELECT id, file_name FROM app.files WHERE app.one()');
blocked('a function of a third', qr/source reporting\.files of role "reporting" runs function app\.one\(\), which belongs to role "app"/);
as('reporting', 'CREATE OR REPLACE VIEW reporting.files AS SELECT id, file_name FROM app.files ORDER BY (SELECT count(*) FROM app.files f WHERE app.one())');
blocked('in a subquery of ORDER BY', qr/runs function app\.one\(\)/);
as('app', q{CREATE VIEW app.nested AS SELECT * FROM app.files WHERE app.one(); GRANT SELECT ON app.nested TO reporting});
as('reporting', 'CREATE OR REPLACE VIEW reporting.files AS SELECT id, file_name FROM app.nested');
blocked('in a view of the other\'s below', qr/runs function app\.one\(\)/);
as('app', q{CREATE FUNCTION app.last(text, text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $2'; GRANT USAGE ON SCHEMA app TO reporting});
as('reporting', q{CREATE AGGREGATE reporting.last(text) (SFUNC = app.last, STYPE = text);
	CREATE OR REPLACE VIEW reporting.files AS SELECT id, reporting.last(file_name) AS file_name FROM app.files GROUP BY id});
blocked('in an aggregate', qr/runs function app\.last/);
as('app', q{CREATE DOMAIN app.checked AS text CHECK (app.one())});
as('reporting', 'DROP VIEW reporting.files; CREATE VIEW reporting.files AS SELECT id, file_name::app.checked AS file_name FROM app.files');
$node->safe_psql('postgres', q{DELETE FROM cleanup_sources});
not_registered('in a domain', 'reporting.files', qr/runs function app\.one\(\)/);
as('reporting', 'DROP VIEW reporting.files; CREATE VIEW reporting.files AS SELECT id, file_name FROM app.files');
$node->safe_psql('postgres', q{SELECT cleanup_add_source('reporting.files')});
as('app', q{CREATE FUNCTION app.immutable(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'; CREATE INDEX expr ON app.files (app.immutable(7))});
blocked('in an index of the other\'s', qr/runs function app\.immutable/);
as('app', q{DROP INDEX app.expr});
$node->safe_psql('postgres', 'GRANT reporting TO app');
as('app', q{CREATE INDEX expr ON app.files (app.immutable(7))});
ok(sql_json($node, 'SELECT cleanup_all()')->{success}, 'who has the rights anyway may');
$node->safe_psql('postgres', 'REVOKE reporting FROM app');
as('app', q{DROP INDEX app.expr});

# a table becomes a view, where the server allows it
as('app', q{CREATE TABLE app.empty (id int, file_name text); GRANT SELECT ON app.empty TO reporting});
as('reporting', 'CREATE OR REPLACE VIEW reporting.files AS SELECT id, file_name FROM app.files UNION ALL SELECT id, file_name FROM app.empty');
ok(sql_json($node, 'SELECT cleanup_all()')->{success}, 'a view of two tables');
my ($rc) = $node->psql('postgres', q{SET ROLE app; CREATE FUNCTION app.two() RETURNS int LANGUAGE sql AS 'SELECT 2';
	CREATE RULE "_RETURN" AS ON SELECT TO app.empty DO INSTEAD SELECT app.two() AS id, NULL::text AS file_name});
blocked('a table that became a view', qr/runs function app\.two\(\)/) if $rc == 0;
forget('reporting.files');

# what a query does not show: the negator of an operator, the difference of a range's subtype
$node->safe_psql('postgres', q{
	SET ROLE app;
	CREATE FUNCTION app.differs(int, int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 <> $2; END';
	CREATE OPERATOR app.<> (FUNCTION = app.differs, LEFTARG = int, RIGHTARG = int, RESTRICT = neqsel);
	CREATE OPERATOR app.= (FUNCTION = pg_catalog.int4eq, LEFTARG = int, RIGHTARG = int, NEGATOR = OPERATOR(app.<>), RESTRICT = eqsel);
	CREATE FUNCTION app.minus(int, int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 - $2; END';
	CREATE TYPE app.span AS RANGE (SUBTYPE = int4, SUBTYPE_DIFF = app.minus, MULTIRANGE_TYPE_NAME = app.spans);
	RESET ROLE;
	CREATE TABLE spans (id int PRIMARY KEY, file_name text, span app.span, spans app.spans);
	INSERT INTO spans SELECT i, 'wanted.mp3', s, app.spans(s)
	FROM (SELECT i, ('[' || i || ',' || i + 5 || ']')::app.span AS s FROM generate_series(1, 300) i) r;
	ANALYZE spans});
foreach my $case ([ 'NOT (id OPERATOR(app.=) 1)', 'differs' ], [ q{span && '[3,100]'::app.span}, 'minus' ], [ q{spans && '{[3,100]}'::app.spans}, 'minus' ])
{
	$node->safe_psql('postgres', "CREATE OR REPLACE VIEW hidden AS SELECT id, file_name FROM spans WHERE $case->[0]");
	not_registered($case->[0], 'hidden', qr/function app\.$case->[1]\(.*belongs to role "app"/s);
}

# functions of the server that do something with the rights of the source's owner
as('app', q{CREATE VIEW app.seen AS SELECT id, file_name FROM app.files; GRANT SELECT ON app.seen TO reporting});
as('reporting', 'CREATE OR REPLACE VIEW reporting.files AS SELECT id, file_name FROM app.seen WHERE clock_timestamp() IS NOT NULL');
$node->safe_psql('postgres', q{SELECT cleanup_add_source('reporting.files')});
foreach my $call ('pg_terminate_backend(0)', q{query_to_xml('SELECT app.one()', false, false, '')}, q{table_to_xml('app.files', false, false, '')})
{
	as('app', "CREATE OR REPLACE VIEW app.seen AS SELECT id, file_name FROM app.files WHERE $call IS NULL OR true");
	blocked("$call in the other's view", qr/calls volatile functions in app\.seen, which belongs to role "app"/);
}
as('app', q{CREATE OR REPLACE VIEW app.seen AS SELECT id, file_name FROM app.files WHERE now() IS NOT NULL});
ok(sql_json($node, 'SELECT cleanup_all()')->{success}, 'a function that does nothing may be called');
as('reporting', q{CREATE FUNCTION reporting.helper() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN app.one() IS NOT NULL; END';
	CREATE OR REPLACE VIEW reporting.files AS SELECT id, file_name FROM app.files WHERE reporting.helper()});
{
	my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all(force => true)');

	like($stderr, qr/ERROR:  function app\.one\(\) belongs to role "app"/, 'in a function of the owner');
}

# PL/pgSQL keeps an expression, with the functions that it has looked up, for the rest of a transaction
as('app', q{CREATE FUNCTION app.says() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE LOG 'app.says() runs as %', current_user; RETURN true; END$$});
as('reporting', q{CREATE OR REPLACE FUNCTION reporting.helper() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN app.says(); END'});
foreach my $before ('', 'SAVEPOINT s; SELECT public.cleanup_status(); ROLLBACK TO s;')
{
	my $position = log_position($node);
	my ($rc, $stdout, $stderr) = $node->psql('postgres',
		"SET search_path = pg_catalog, pg_temp; BEGIN; $before SELECT reporting.helper(); SELECT public.cleanup_all(force => true)",
		on_error_stop => 0);

	is(scalar(() = $stderr =~ /ERROR:  function app\.says\(\) belongs to role "app"/g), $before ? 2 : 1, "an expression that was evaluated before: $before");
	unlike(log_since($node, $position), qr/app\.says\(\) runs as reporting/, "it did not run: $before");
}

# what was added after the snapshot of a viewer who chose the isolation level
as('reporting', 'CREATE OR REPLACE VIEW reporting.files AS SELECT id, file_name FROM app.files');
$node->safe_psql('postgres', q{SELECT cleanup_grant_access('app')});
{
	my $session = $node->background_psql('postgres');
	my $answer;

	$session->query_safe('SET ROLE app; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	as('app', 'CREATE INDEX expr ON app.files (app.immutable(7))');
	$answer = $session->query_safe('SELECT public.cleanup_status()');
	like($answer, qr/runs function app\.immutable/, 'an index that is younger than the snapshot is seen');
	$session->quit;
}
as('app', q{DROP INDEX app.expr});
forget('reporting.files');

# ---- a trigger that is made while the rows are being looked at ----

$node->safe_psql('postgres', q{
	CREATE TABLE failing (id int PRIMARY KEY, file_name text, status text, updated_at timestamptz);
	INSERT INTO failing VALUES (1, 'wanted.mp3', 'processed', now()), (2, 'dead.mp3', 'failed', '2024-01-01');
	GRANT TRIGGER ON failing TO app;
	SELECT cleanup_add_source('failing', on_failed => 'clear')});
as('app', q{CREATE FUNCTION app.gains() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN ALTER ROLE app CREATEROLE; RETURN new; END'});
{
	my $session = $node->background_psql('postgres');
	my $run;

	put_files($dir, 'dead.mp3');
	$session->query_safe('SET ROLE app; BEGIN; CREATE TRIGGER late BEFORE UPDATE ON failing FOR EACH ROW EXECUTE FUNCTION app.gains()');
	$run = $node->background_psql('postgres');
	$run->query_until(qr/begun/, "\\echo begun\nSELECT cleanup_failed_sessions(dry_run => true, force => true);\n");
	$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'failing'::regclass AND NOT granted});
	$session->query_safe('COMMIT');
	like($run->query_safe('SELECT 1'), qr/runs function app\.gains\(\)/, 'a late trigger does not run as the superuser who owns the table');
	$_->quit foreach $session, $run;
}
$node->safe_psql('postgres', 'DROP TRIGGER late ON failing');
forget('failing');
unlink "$dir/dead.mp3";

# ---- other servers ----

$node->safe_psql('postgres', q{CREATE EXTENSION dblink; CREATE VIEW far AS
	SELECT * FROM dblink('dbname=postgres', 'SELECT 1, NULL::text') AS f(id int, file_name text)});
not_registered('dblink', 'far', qr/0A000: .*source public\.far calls public\.dblink\(.*which reads another server.*cannot be waited for/s);
$node->safe_psql('postgres', q{
	CREATE TABLE spread (id int PRIMARY KEY, file_name text); CREATE TABLE top (id int, file_name text) PARTITION BY LIST (id);
	CREATE TABLE part PARTITION OF top DEFAULT; CREATE VIEW over_spread AS SELECT * FROM spread;
	CREATE TABLE plain (id int PRIMARY KEY, file_name text);
	SET allow_system_table_mods = on; CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char");
	INSERT INTO pg_catalog.pg_dist_partition VALUES ('spread', 'h'), ('part', 'n');
	SELECT cleanup_add_source('plain')});
not_registered('a distributed table', 'spread', qr/0A000: .*source public\.spread is distributed over several servers.*cannot be waited for/s);
not_registered('a view of it', 'over_spread', qr/0A000: .*reads public\.spread, which is distributed/s);
not_registered('a distributed partition', 'top', qr/0A000: .*reads public\.part, which is distributed/s);
$node->safe_psql('postgres', q{INSERT INTO pg_catalog.pg_dist_partition VALUES ('plain', 'h')});
blocked('a table that was distributed afterwards', qr/source public\.plain is distributed over several servers/);
$node->safe_psql('postgres', q{SET allow_system_table_mods = on; DROP TABLE pg_catalog.pg_dist_partition});
forget('plain');

# ---- names, locks ----

$node->safe_psql('postgres', q{INSERT INTO plain VALUES (1, 'wanted.mp3'); SELECT cleanup_add_source('plain')});
ok(sql_json($node, 'SET quote_all_identifiers = on; SELECT cleanup_all()')->{success}, 'quote_all_identifiers is no matter');
{
	my $session = $node->background_psql('postgres');
	my $answer;

	$node->safe_psql('postgres', q{CREATE TABLE locked (id int, file_name text); SELECT cleanup_add_source('locked')});
	$session->query_safe('BEGIN; LOCK TABLE locked');
	$answer = sql_json($node, q{SET audio_cleanup.writer_wait = '200ms'; SELECT cleanup_status()});
	ok(!$answer->{success}, 'a locked source is a brake');
	like($answer->{potential_cleanup}{errors}[0], qr/lock on "locked"/, 'that says so');
	$session->quit;
}

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
