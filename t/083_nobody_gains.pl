# Who owns a source, a schema, a type or the database tries to have code of his
# run as somebody else.  He may try what he likes: afterwards he is no
# superuser, and his code has run as nobody but himself.
#
# Slow: some thirty attacks, each with all calls.
#
# evil() is his.  It writes into the server's log as whom it runs, which no
# rollback takes back, and makes him a superuser where it can.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_server('gains', conf => <<'END');
audio_cleanup.max_delete_percent = 100
log_statement = none
END
my $super = $ENV{PGUSER} // getpwuid($<);
my $top = upload_dir($node);
my $n = 0;
my ($database, $dir, $position);

my @looking = ('SELECT cleanup_status()', 'SELECT cleanup_all(true)', q{SELECT cleanup_explain('wanted.mp3')}, q{SELECT cleanup_explain('orphan.mp3')},
	'SELECT count(*) FROM cleanup_check()', 'SELECT count(*) FROM cleanup_missing_files()', 'SELECT length(cleanup_dashboard())');
my @cleaning = ('SELECT cleanup_all()', 'CALL cleanup_run()', 'SELECT cleanup_failed_sessions()', 'SELECT cleanup_purge_backups()',
	q{SELECT cleanup_restore(run_id) FROM cleanup_runs ORDER BY run_id LIMIT 1}, 'SELECT cleanup_all(force => true)');

# A database of mallory's, with the extension and an upload directory.
sub begin
{
	my (%options) = @_;

	$database = 'db' . ++$n;
	$dir = "$top/$database";
	put_files($dir, 'wanted.mp3', 'orphan.mp3', 'failed.mp3');
	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER mallory;
		ALTER DATABASE $database SET audio_cleanup.upload_dir = '$dir'; ALTER DATABASE $database SET audio_cleanup.backup_retention_days = 1");
	dba('CREATE EXTENSION audio_cleanup; GRANT ALL ON SCHEMA public TO mallory') unless $options{without};
	mallory(q{
		CREATE SCHEMA lab;
		GRANT ALL ON SCHEMA lab TO PUBLIC;
		CREATE FUNCTION lab.evil() RETURNS boolean LANGUAGE plpgsql AS $f$
		BEGIN
			RAISE LOG 'evil as %', current_user;
			BEGIN
				EXECUTE 'ALTER ROLE mallory SUPERUSER';
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
			RETURN true;
		END $f$;
		CREATE FUNCTION lab.evil_immutable(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN PERFORM lab.evil(); RETURN $1; END $f$;
		CREATE FUNCTION lab.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM lab.evil(); RETURN NEW; END $f$;
		CREATE TYPE lab.st AS ENUM ('processed', 'failed');
		CREATE FUNCTION lab.tries(what text) RETURNS void LANGUAGE plpgsql AS $f$
		BEGIN EXECUTE what; EXCEPTION WHEN OTHERS THEN NULL; END $f$;
	});
	$position = log_position($node);
	return;
}

sub dba { my ($sql) = @_; return $node->safe_psql($database, $sql); }

sub mallory { my ($sql) = @_; return $node->safe_psql($database, $sql, extra_params => [ '-U', 'mallory' ]); }

# What the server does not let him do (in this version) he leaves.
sub mallory_tries { my ($sql) = @_; $node->psql($database, $sql, extra_params => [ '-U', 'mallory' ], on_error_stop => 0); return; }

sub call_all
{
	my ($role, @calls) = @_;
	foreach my $call (@calls)
	{
		put_files($dir, 'wanted.mp3', 'orphan.mp3', 'failed.mp3', 'orphan' . int(rand 1000) . '.mp3');
		$node->psql($database, $call, extra_params => [ '-U', $role ]);
	}
	return;
}

# nothing_gained(NAME, ran => 1: his code has run as himself, so the attack was one)
sub nothing_gained
{
	my ($name, %options) = @_;
	my $log = log_since($node, $position);
	my %ran = map { $_ => 1 } $log =~ /evil as (\w+)/g;

	is($node->safe_psql('postgres', q{SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolsuper}), $super,
		"$name: nobody has become a superuser");
	ok($ran{mallory}, "$name: his code does run as himself") if $options{ran};
	delete $ran{mallory};
	is(join(' ', sort keys %ran), '', "$name: and as nobody else");
	$node->safe_psql('postgres', 'ALTER ROLE mallory NOSUPERUSER');
	return;
}

sub attack
{
	my ($name, %options) = @_;
	call_all($_, @looking, @cleaning) foreach $options{as} ? @{ $options{as} } : $super;
	nothing_gained($name, %options);
	return;
}

my $sessions = q{CREATE TABLE sessions (id int PRIMARY KEY, audio_url text, status text, updated_at timestamptz DEFAULT now());
	INSERT INTO sessions VALUES (1, 'wanted.mp3', 'processed', now()), (2, 'failed.mp3', 'failed', now() - interval '20 days');};

$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN; CREATE ROLE op LOGIN');

# ---- the test can fail: a view of his own runs his code, as himself ----

begin();
mallory("$sessions CREATE VIEW v AS SELECT id, audio_url FROM sessions WHERE lab.evil()");
dba(q{SELECT cleanup_add_source('v')});
attack('a view of his own', ran => 1);

# ---- names are changed while a source is read ----

# His view, or the cast of a column, renames SCHEMA and puts views that call evil() in the place of its relations.
sub swap_schema
{
	my ($schema, @relations) = @_;
	my $views = join ' ', map {
		"PERFORM lab.tries('CREATE VIEW $schema.$_ AS SELECT t.* FROM was_$schema.$_ t WHERE lab.evil()');
		 PERFORM lab.tries('CREATE VIEW $schema.$_ AS SELECT 1 AS id, ''wanted.mp3''::text AS audio_url, ''x''::text AS status, now() AS updated_at WHERE lab.evil()');" } @relations;
	return qq{
		CREATE FUNCTION lab.swap() RETURNS boolean LANGUAGE plpgsql AS \$f\$
		BEGIN
			IF to_regnamespace('was_$schema') IS NULL THEN
				PERFORM lab.tries('ALTER SCHEMA $schema RENAME TO was_$schema');
				PERFORM lab.tries('CREATE SCHEMA $schema');
				$views
			END IF;
			RETURN true;
		END \$f\$;
		CREATE FUNCTION lab.st_to_text(lab.st) RETURNS text LANGUAGE plpgsql AS \$f\$ BEGIN PERFORM lab.swap(); RETURN 'processed'; END \$f\$;
		CREATE CAST (lab.st AS text) WITH FUNCTION lab.st_to_text(lab.st) AS IMPLICIT;};
}

my @own = qw(cleanup_files cleanup_runs cleanup_holds cleanup_sources cleanup_claims cleanup_cleared cleanup_totals cleanup_backups);

begin();
mallory($sessions);
dba(q{SELECT cleanup_add_source('sessions')});
mallory(swap_schema('public', @own) . 'ALTER TABLE sessions ALTER status TYPE lab.st USING status::lab.st');
attack("the extension's schema renamed by a cast");

begin();
mallory("CREATE SCHEMA his; SET search_path = his; $sessions " . swap_schema('public', @own) .
	'CREATE VIEW his.v AS SELECT id, audio_url FROM his.sessions WHERE lab.swap()');
dba(q{SELECT cleanup_add_source('his.v')});
attack("the extension's schema renamed by a view");

begin();
mallory('CREATE SCHEMA app; GRANT ALL ON SCHEMA app TO PUBLIC;' . swap_schema('app', 'sessions') .
	"SET search_path = app; $sessions CREATE VIEW app.a AS SELECT id, audio_url FROM app.sessions WHERE lab.swap()");
dba(q{CREATE TABLE app.dbas (id int PRIMARY KEY, audio_url text); INSERT INTO app.dbas VALUES (1, 'wanted.mp3');
	SELECT cleanup_add_source('app.a'); SELECT cleanup_add_source('app.dbas'); UPDATE cleanup_sources SET added_at = now() - interval '1 day' WHERE source = 'app.a'::regclass});
mallory(q{CREATE OR REPLACE FUNCTION lab.swap() RETURNS boolean LANGUAGE plpgsql AS $f$
	BEGIN
		IF to_regnamespace('was_app') IS NULL THEN
			PERFORM lab.tries('ALTER SCHEMA app RENAME TO was_app'); PERFORM lab.tries('CREATE SCHEMA app');
			PERFORM lab.tries('CREATE VIEW app.dbas AS SELECT 1 AS id, ''wanted.mp3''::text AS audio_url WHERE lab.evil()');
		END IF;
		RETURN true;
	END $f$});
attack('a source of the DBA swapped for a view');

# ---- types, rules, indexes, constraints below a view of the DBA ----

my %below = (
	'a cast of the type of a column' => q{
		CREATE FUNCTION lab.c(lab.st) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN PERFORM lab.evil(); RETURN 'processed'; END $f$;
		CREATE CAST (lab.st AS text) WITH FUNCTION lab.c(lab.st) AS IMPLICIT;},
	'an operator of the type of a column' => q{
		CREATE FUNCTION lab.eq(lab.st, text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN PERFORM lab.evil(); RETURN true; END $f$;
		CREATE OPERATOR public.= (LEFTARG = lab.st, RIGHTARG = text, FUNCTION = lab.eq);
		CREATE OPERATOR lab.= (LEFTARG = lab.st, RIGHTARG = text, FUNCTION = lab.eq);},
	'a rule that makes the table a view' => q{
		CREATE RULE "_RETURN" AS ON SELECT TO empty DO INSTEAD SELECT lab.evil_immutable(1) AS id, NULL::text AS audio_url;},
	'a view in place of the table, put below by name' => q{
		ALTER TABLE empty RENAME TO gone; CREATE VIEW empty AS SELECT 1 AS id, 'x'::text AS audio_url WHERE lab.evil();},
	'an index on an expression of constants' => 'CREATE INDEX ON sessions ((lab.evil_immutable(1)));',
	'an index with a predicate of constants' => 'CREATE INDEX ON sessions (id) WHERE lab.evil_immutable(1) = 1;',
	'statistics on an expression' => 'CREATE STATISTICS s ON (lab.evil_immutable(id)), id FROM sessions; ANALYZE sessions;',
	'a constraint of constants' => q{
		ALTER TABLE sessions ADD CHECK (lab.evil_immutable(1) = 1); ALTER TABLE empty ADD CHECK (lab.evil_immutable(1) = 2);
		ALTER DATABASE :DATABASE SET constraint_exclusion = on;},
	'a policy' => q{ALTER TABLE sessions ENABLE ROW LEVEL SECURITY; ALTER TABLE sessions FORCE ROW LEVEL SECURITY;
		CREATE POLICY p ON sessions USING (lab.evil());},
	'a partition, and a child' => q{CREATE TABLE kid () INHERITS (sessions); CREATE INDEX ON kid ((lab.evil_immutable(1)));
		ALTER TABLE kid ADD CHECK (lab.evil_immutable(1) = 1);},
	'a trigger' => q{CREATE TRIGGER t BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION lab.evil_trigger();
		CREATE TRIGGER s BEFORE UPDATE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION lab.evil_trigger();},
	'a generated column' => 'ALTER TABLE sessions ADD COLUMN g int GENERATED ALWAYS AS (lab.evil_immutable(id)) STORED;',
	'a domain' => q{CREATE DOMAIN lab.checked AS text CHECK (lab.evil_immutable(1) = 1);},
	'a rule on UPDATE' => 'CREATE RULE r AS ON UPDATE TO sessions DO ALSO SELECT lab.evil();',
	'a collation and a comparison of its own' => q{CREATE FUNCTION lab.lt(int, int) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN PERFORM lab.evil(); RETURN true; END $f$;
		CREATE OPERATOR public.< (LEFTARG = int, RIGHTARG = int, FUNCTION = lab.lt); CREATE OPERATOR public.~ (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);});

foreach my $name (sort keys %below)
{
	begin();
	mallory(q{CREATE TABLE sessions (id int PRIMARY KEY, audio_url text, status lab.st, updated_at timestamptz DEFAULT now());
		INSERT INTO sessions VALUES (1, 'wanted.mp3', 'processed', now()), (2, 'failed.mp3', 'failed', now() - interval '20 days');
		CREATE TABLE empty (id int, audio_url text)});
	dba(q{CREATE VIEW dbas AS SELECT id, audio_url, status, updated_at FROM sessions UNION ALL SELECT id, audio_url, NULL, now() FROM empty});
	# a DBA who is refused tries the other ways
	$node->psql($database, $_) foreach q{SELECT cleanup_add_source('dbas')}, q{SELECT cleanup_add_source('sessions', on_failed => 'clear')};
	mallory_tries($below{$name} =~ s/:DATABASE/$database/gr);
	attack("below a view of the DBA: $name");
}

# ---- tables of the DBA on which somebody else has rights ----

begin();
dba(qq{$sessions CREATE TABLE parts (id int, audio_url text) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF parts DEFAULT; INSERT INTO parts VALUES (1, 'wanted.mp3');
	GRANT TRIGGER ON sessions TO mallory; ALTER TABLE part OWNER TO mallory});
mallory(q{CREATE TRIGGER t BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION lab.evil_trigger()});
$node->psql($database, $_) foreach q{SELECT cleanup_add_source('sessions', on_failed => 'clear')}, q{SELECT cleanup_add_source('parts')};
mallory_tries(q{CREATE INDEX ON part ((lab.evil_immutable(1))); ALTER TABLE part ADD CHECK (lab.evil_immutable(1) = 1)});
attack('a trigger and a partition of his on tables of the DBA');

# ---- what surrounds a call ----

begin();
mallory($sessions);
dba(q{SELECT cleanup_add_source('sessions', on_failed => 'clear'); SELECT cleanup_grant_access('op', 'operator')});
mallory(qq{
	CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS \$f\$ BEGIN PERFORM lab.evil(); RETURN clock_timestamp(); END \$f\$;
	CREATE FUNCTION lab.count(int) RETURNS bigint LANGUAGE plpgsql AS \$f\$ BEGIN PERFORM lab.evil(); RETURN 1; END \$f\$;
	CREATE FUNCTION public.evil_text(text, text) RETURNS boolean LANGUAGE plpgsql AS \$f\$ BEGIN PERFORM lab.evil(); RETURN true; END \$f\$;
	CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.evil_text);
	CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = public.evil_text);
	CREATE FUNCTION public.cleanup_status(int DEFAULT 1) RETURNS jsonb LANGUAGE plpgsql AS \$f\$ BEGIN PERFORM lab.evil(); RETURN '{}'; END \$f\$;
	CREATE TABLE lab.cleanup_files (file_id int); CREATE VIEW lab.cleanup_sources AS SELECT lab.evil(); CREATE VIEW lab.pg_class AS SELECT lab.evil();
	ALTER DATABASE $database SET search_path = lab, public, pg_catalog;
	ALTER DATABASE $database SET quote_all_identifiers = on;
	ALTER DATABASE $database SET transform_null_equals = on;
	ALTER DATABASE $database SET row_security = off;
	ALTER DATABASE $database SET default_transaction_isolation = 'read committed';
	ALTER DATABASE $database SET plan_cache_mode = force_generic_plan;
	ALTER DATABASE $database SET xmloption = document;
	ALTER DATABASE $database SET datestyle = 'SQL, DMY';
	ALTER DATABASE $database SET intervalstyle = 'sql_standard';
	ALTER DATABASE $database SET bytea_output = 'escape';
	ALTER DATABASE $database SET extra_float_digits = -15});
mallory_tries("ALTER DATABASE $database SET standard_conforming_strings = off");
my @qualified = map { s/(SELECT|CALL|FROM|\() ?(cleanup_\w+)/$1 public.$2/gr } grep { !/cleanup_status/ } @looking, @cleaning;
call_all($_, @qualified) foreach $super, 'op';
nothing_gained('functions, operators and settings of the database');
dba("ALTER DATABASE $database RESET ALL; ALTER DATABASE $database SET audio_cleanup.upload_dir = '$dir'");

# An operator hides our tables behind temporary ones, with triggers and views, in his own session.
begin();
dba("$sessions SELECT cleanup_add_source('sessions'); SELECT cleanup_grant_access('op', 'operator'); GRANT TEMP ON DATABASE $database TO op");
{
	my $shadows = join ' ', map { "CREATE TEMP TABLE $_ (LIKE pg_catalog.pg_class); CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON pg_temp.$_ FOR EACH ROW EXECUTE FUNCTION lab.evil_trigger();" }
	  @own, 'pg_extension', 'pg_namespace';
	my $views = join ' ', map { "CREATE TEMP VIEW $_ AS SELECT lab.evil() AS file;" } 'sessions', 'pg_depend', 'cleanup_found', 'cleanup_progress';
	my $functions = 'CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS $f$ SELECT lab.evil(); SELECT clock_timestamp() $f$;';

	foreach my $path ('pg_temp, lab, public, pg_catalog', 'lab, public', '')
	{
		foreach my $call (@qualified)
		{
			put_files($dir, 'wanted.mp3', 'orphan.mp3', 'failed.mp3');
			$node->psql($database, "SET client_min_messages = error; $shadows $views $functions SET search_path = " . ($path || q{''}) . "; $call",
				extra_params => [ '-U', 'op' ], on_error_stop => 0);
		}
	}
	# evil() runs in op's own session as op where he calls it himself, but as nobody who is more
	my %ran = map { $_ => 1 } log_since($node, $position) =~ /evil as (\w+)/g;
	delete @ran{ 'op', 'mallory' };
	is(join(' ', sort keys %ran), '', 'temporary tables, views and functions of an operator: evil() ran as nobody else');
	$position = log_position($node);
	nothing_gained('temporary tables, views and functions of an operator');
}

# ---- names that are SQL, formats, paths ----

begin();
{
	my @evil = (q{'; ALTER ROLE mallory SUPERUSER; --.mp3}, q{$$; ALTER ROLE mallory SUPERUSER; $$.mp3}, '%s%n%s%n%1$s.mp3', '"; SELECT lab.evil(); --.mp3', q{\\'; SELECT lab.evil(); --.mp3},
		"new\nline\tand tab.mp3", '$1 $2 $99.mp3', '@extschema@.mp3', 'a../evil.mp3' =~ s{/}{_}r, '<script>alert(1)</script>.mp3' =~ s{/}{_}r);
	my $table = q{"t""; ALTER ROLE mallory SUPERUSER; -- %s %n $1 @extschema@"};
	my $column = q{"c'); SELECT lab.evil(); -- "" %s $1"};
	my $array = "ARRAY['" . (q{c'); SELECT lab.evil(); -- " %s $1} =~ s/'/''/gr) . "']";

	put_files($dir, @evil);
	mallory("CREATE SCHEMA \"s'; SELECT lab.evil(); --\"; CREATE TABLE \"s'; SELECT lab.evil(); --\".$table ($column text, \"id %s'\"\"\" int PRIMARY KEY);
		INSERT INTO \"s'; SELECT lab.evil(); --\".$table VALUES ('wanted.mp3', 1)");
	my ($rc, $stdout, $stderr) = $node->psql($database, q{SELECT cleanup_add_source('} . ("\"s'; SELECT lab.evil(); --\".$table" =~ s/'/''/gr) . "', $array)");
	is($rc, 0, 'a source with names like SQL is registered') or diag($stderr);
	attack('names that are SQL and formats');
	ok(-e "$dir/wanted.mp3", 'and what it refers to is kept');
	dba('SELECT cleanup_all(force => true)');
	ok(wait_for_drain($node, $database), 'files with such names are dealt with');
	# what begins with a dot is let alone
	is(dba(q{SELECT string_agg(DISTINCT encode(convert_to(file, 'UTF8'), 'hex'), ' ' ORDER BY encode(convert_to(file, 'UTF8'), 'hex'))
			FROM cleanup_files WHERE file !~ '^(orphan|failed)'}),
		join(' ', sort map { unpack('H*', $_) } grep { !/^\./ } @evil), 'each by its own name');
}

# ---- an error does not tell what stands in rows, to who may not read them ----

begin();
dba(q{
	CREATE ROLE looks LOGIN; CREATE ROLE cleans LOGIN;
	SELECT cleanup_grant_access('looks'), cleanup_grant_access('cleans', 'operator');
	CREATE TABLE patients (id int PRIMARY KEY, note text, audio_url text, status text, updated_at timestamptz);
	INSERT INTO patients VALUES (1, 'top-secret', 'wanted.mp3', 'processed', now()), (2, 'top-secret', 'failed.mp3', 'failed', now() - interval '1 year');
	SELECT cleanup_add_source('patients', on_failed => 'clear')});
foreach my $case (
	[ 'of a constraint', 'ALTER TABLE patients ADD CONSTRAINT c CHECK (audio_url IS NOT NULL)', 'ALTER TABLE patients DROP CONSTRAINT c' ],
	[ 'of a trigger', q{CREATE FUNCTION says() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no: %', NEW USING HINT = NEW::text; END$$;
		CREATE TRIGGER says BEFORE UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION says()}, 'DROP FUNCTION says() CASCADE' ],
	[ 'of a view', q{CREATE VIEW numbers AS SELECT id, (note::int)::text AS file_name FROM patients; SELECT cleanup_add_source('numbers')},
		q{SELECT cleanup_drop_source('numbers'); DROP VIEW numbers} ])
{
	my ($name, $begin, $end) = @$case;
	my $told = sub { join '', ($node->psql($database, $_[1], extra_params => [ '-U', $_[0] ]))[ 1, 2 ] };

	put_files($dir, 'wanted.mp3', 'failed.mp3', 'orphan.mp3');
	dba($begin);
	foreach my $call (@looking[ 0, 5, 6 ])
	{
		unlike($told->('looks', $call), qr/top-secret/, "an error $name: $call does not tell a viewer");
	}
	unlike($told->('cleans', $_), qr/top-secret/, "an error $name: $_ does not tell an operator") foreach 'SELECT cleanup_all(true)', 'SELECT cleanup_all()', 'CALL cleanup_run()';
	$position = log_position($node);
	like($told->($super, 'SELECT cleanup_status()'), qr/top-secret/, "an error $name: a superuser is told");
	$told->($super, 'CALL cleanup_run()');
	unlike($told->('looks', 'SELECT * FROM cleanup_runs; SELECT * FROM cleanup_files'), qr/top-secret/, "an error $name: and the history is not");
	$position = log_position($node);
	$told->('cleans', 'SELECT cleanup_all(true)');
	like(log_since($node, $position), qr/top-secret/, "an error $name: the server log has it");
	dba($end);
}

# ---- a race: names and objects change all the time in another session ----

begin();
mallory("CREATE SCHEMA app; SET search_path = app; $sessions CREATE TABLE app.other AS SELECT * FROM app.sessions");
dba(q{CREATE VIEW dbas_view AS SELECT 1 AS id, 'wanted.mp3'::text AS audio_url; CREATE TABLE app.dbas (id int PRIMARY KEY, audio_url text)});
$node->psql($database, "SELECT cleanup_add_source('$_')") foreach 'app.sessions', 'dbas_view', 'app.dbas';
{
	my $over = $node->basedir . '/over';
	my $pid = fork;
	die "could not fork: $!" unless defined $pid;
	if (!$pid)
	{
		my @tricks = (
			'ALTER TABLE app.sessions RENAME TO away; CREATE VIEW app.sessions AS SELECT id, audio_url, status, updated_at FROM app.away WHERE lab.evil();
				SELECT pg_sleep(0.02); DROP VIEW app.sessions; ALTER TABLE app.away RENAME TO sessions',
			'ALTER SCHEMA app RENAME TO gone; CREATE SCHEMA app; CREATE VIEW app.dbas AS SELECT 1 AS id, NULL::text AS audio_url WHERE lab.evil(); CREATE VIEW app.sessions AS SELECT id, audio_url, status, updated_at FROM gone.sessions WHERE lab.evil();
				SELECT pg_sleep(0.02); DROP SCHEMA app CASCADE; ALTER SCHEMA gone RENAME TO app',
			'ALTER SCHEMA public RENAME TO gone_public; CREATE SCHEMA public; ' . join(' ', map { "CREATE VIEW public.$_ AS SELECT lab.evil() AS file;" } @own) .
				'SELECT pg_sleep(0.02); DROP SCHEMA public CASCADE; ALTER SCHEMA gone_public RENAME TO public',
			'ALTER TABLE app.sessions RENAME audio_url TO x; ALTER TABLE app.sessions ADD COLUMN audio_url lab.st; SELECT pg_sleep(0.02);
				ALTER TABLE app.sessions DROP COLUMN audio_url; ALTER TABLE app.sessions RENAME x TO audio_url',
			'ALTER TABLE app.sessions ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.sessions USING (lab.evil()); ALTER TABLE app.sessions FORCE ROW LEVEL SECURITY;
				SELECT pg_sleep(0.02); DROP POLICY p ON app.sessions; ALTER TABLE app.sessions NO FORCE ROW LEVEL SECURITY; ALTER TABLE app.sessions DISABLE ROW LEVEL SECURITY');
		while (!-e $over)
		{
			my $trick = $tricks[ rand @tricks ];
			$node->psql($database, rand() < 0.5 ? $trick : "BEGIN; $trick; COMMIT", extra_params => [ '-U', 'mallory' ], on_error_stop => 0);
		}
		POSIX::_exit(0);
	}
	my $begin = time;
	for (my $rounds = 0; $rounds < 3 || time < $begin + 10; $rounds++)
	{
		last if time > $begin + ($ENV{PG_TEST_TIMEOUT_DEFAULT} || 180);
		call_all($super, @looking, @cleaning);
	}
	append_to_file($over, '');
	waitpid $pid, 0;
	nothing_gained('a race for names');
}

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC: |TRAP: |terminated by signal/, 'no process has died');
done_testing();
