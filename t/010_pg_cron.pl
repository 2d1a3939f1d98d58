# pg_cron calls cleanup_run(), by a connection and by a background worker of
# its own, here and in other databases; cleanup_check() tells if both it and the
# built-in schedule would.  It knows minutes only, so this takes up to one.
#
# Slow: pg_cron knows minutes only.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my ($share) = run_command([ 'pg_config', '--sharedir' ]);
plan skip_all => 'pg_cron is not installed' unless -e "$share/extension/pg_cron.control";

my $call = 'CALL cleanup_run()';
my $minutely = "'* * * * *'";
my $yearly = "'0 0 1 1 *'";
my $not_now = ((gmtime)[2] + 12) % 24;

sub new_cron_server
{
	my ($name, $libraries, $workers, $conf) = @_;
	my $node = new_server($name, start => 0, conf => "shared_preload_libraries = '$libraries'\n"
		  . "audio_cleanup.cleanup_schedule_hour = $not_now\n"
		  . "audio_cleanup.max_delete_percent = 100\n"
		  . "cron.use_background_workers = $workers\n" . ($conf || ''));

	$node->append_conf('postgresql.conf', "cron.host = '" . $node->host . "'");
	$node->start;
	return $node;
}

# A database with an upload directory of its own, in which ten files of $n are orphans.
sub make_database
{
	my ($node, $database, $n) = @_;
	my $dir = $node->basedir . "/$database";

	mkdir $dir or die $!;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET audio_cleanup.upload_dir = '$dir'");
	make_schema($node, $database);
	put_files($dir, map { "file$_.mp3" } 1 .. $n);
	$node->safe_psql($database, "INSERT INTO sessions (audio_url) SELECT 'file' || i || '.mp3' FROM generate_series(11, $n) i");
	return;
}

sub names
{
	my ($dir) = @_;
	return join ' ', sort keys %{ visible_files($dir) };
}

# ---- jobs, all for the same minute ----

my %nodes = (
	connection => new_cron_server('connection', 'pg_cron, audio_cleanup', 'off'),
	worker => new_cron_server('worker', 'audio_cleanup, pg_cron', 'on', "cron.database_name = 'elsewhere'\n"),
	# here a run that takes long tells its client about it, which is pg_cron
	bare_connection => new_cron_server('bare_connection', 'pg_cron', 'off', "audio_cleanup.files_per_second = 4\n"),
	bare_worker => new_cron_server('bare_worker', 'pg_cron', 'on', "audio_cleanup.files_per_second = 4\n"));

foreach my $way ('connection', 'bare_connection', 'bare_worker')
{
	my $node = $nodes{$way};
	my $dir = upload_dir($node);

	make_schema($node);
	add_rows($node, put_files($dir, 'wanted.mp3'));
	put_files($dir, map { "orphan$_.mp3" } 1 .. ($way eq 'connection' ? 5 : 24));
	$node->safe_psql('postgres', qq{
		CREATE EXTENSION pg_cron;
		ALTER DATABASE postgres SET audio_cleanup.batch_size = 2;
		SELECT cron.schedule('audio-cleanup', $minutely, '$call')});
}
$nodes{worker}->safe_psql('postgres', 'CREATE DATABASE elsewhere');
# pg_cron has found that its database does not exist
$nodes{worker}->restart;
$nodes{worker}->safe_psql('elsewhere', 'CREATE EXTENSION pg_cron');
foreach my $way ('connection', 'worker')
{
	my $node = $nodes{$way};

	make_database($node, 'app', 12);
	make_database($node, 'refused', 10);
	$node->safe_psql($way eq 'worker' ? 'elsewhere' : 'postgres', qq{
		SELECT cron.schedule_in_database('audio-cleanup-app', $minutely, '$call', 'app');
		SELECT cron.schedule_in_database('audio-cleanup-refused', $minutely, '$call', 'refused')});
}

# ---- meanwhile: does cleanup_check() see them? ----

my $node = $nodes{connection};

sub findings
{
	my ($database, $sql) = @_;
	return $node->safe_psql($database, ($sql || '')
		  . q{ SELECT status, detail, hint FROM cleanup_check() WHERE check_name = 'pg_cron'});
}

sub set_conf
{
	my ($name, $value) = @_;
	$node->append_conf('postgresql.conf', "$name = '$value'");
	$node->reload;
	ok($node->poll_query_until('postgres', "SELECT current_setting('$name') = '$value'"), "$name = '$value'");
	return;
}

my %job = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT database, jobid FROM cron.job');
my $fine = "ok|job $job{postgres} of pg_cron (* * * * *) cleans this database|";
is(findings('postgres'), $fine, 'pg_cron alone is fine; what it does elsewhere is no matter here');
is(findings('app'), '', 'where pg_cron is not installed, its jobs are not seen');

set_conf('audio_cleanup.databases', 'app');
my $twice = 'warning|job %d of pg_cron (* * * * *) cleans database "%s", and so does the built-in schedule'
  . '|Call cron.unschedule(%1$d), or remove the database from audio_cleanup.databases.';
my $app_twice = sprintf $twice, $job{app}, 'app';
is(findings('postgres'), "$fine\n$app_twice", 'another database is cleaned by both');
set_conf('audio_cleanup.databases', 'postgres, app');
my $both_twice = sprintf($twice, $job{postgres}, 'postgres') . "\n$app_twice";
is(findings('postgres'), $both_twice, 'so is this one');
# 19 has the first of them no more
is(findings('postgres', "\\set ON_ERROR_STOP 0\nSET standard_conforming_strings = off; SET escape_string_warning = on;"),
	$both_twice, 'whatever the session has set');
is(findings('postgres', 'BEGIN READ ONLY;'), $both_twice, 'in a read-only transaction');
$node->safe_psql('postgres', q{CREATE ROLE looker; SELECT cleanup_grant_access('looker')});
is(findings('postgres', 'SET ROLE looker;'), $both_twice, 'a viewer is told, too');
is(findings('postgres', 'BEGIN; ALTER TABLE cron.job RENAME active TO alive;'), '', 'a table that looks otherwise is not read');
is(findings('postgres', "BEGIN; UPDATE cron.job SET active = false WHERE database = 'app';"), sprintf($twice, $job{postgres}, 'postgres'),
	'a job that is not active does nothing');
my $other_jobs = $node->safe_psql('postgres', qq{
	SELECT cron.schedule('vacuum', $yearly, 'VACUUM');
	SELECT cron.schedule('status', $yearly, 'SELECT cleanup_status()');
	SELECT cron.schedule('history', $yearly, 'SELECT count(*) FROM cleanup_runs');
	SELECT cron.schedule('mine', $yearly, 'CALL my_cleanup_run()')});
is(findings('postgres'), $both_twice, 'jobs that do something else do not matter');
foreach my $command ('SELECT cleanup_all()', 'select public.CLEANUP_ORPHANED_FILES(false)', 'SET x.y = 1; CALL public.cleanup_run ( )')
{
	my $id = $node->safe_psql('postgres', "SELECT cron.schedule_in_database('so', $yearly, '$command', 'app')");
	like(findings('postgres'), qr/^warning\|job $id of pg_cron \(0 0 1 1 \*\) cleans database "app"/m, "a job that cleans: $command");
	$node->safe_psql('postgres', "SELECT cron.unschedule($id)");
}
set_conf('audio_cleanup.cleanup_schedule_hour', '-1');
is(findings('postgres'), $fine, 'at an hour that never comes only pg_cron cleans');
set_conf('audio_cleanup.cleanup_schedule_hour', $not_now);
$node->safe_psql('postgres', "SELECT cron.unschedule($_)") foreach split /\n/, $other_jobs;

# ---- somebody who is not pg_cron ----

my $position = log_position($node);
$node->safe_psql('app', q{
	CREATE ROLE mallory; GRANT CREATE ON DATABASE app TO mallory;
	SET ROLE mallory;
	CREATE SCHEMA cron;
	CREATE FUNCTION cron.trap(x text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN RAISE LOG 'the trap was sprung by %', current_user; RETURN x; END $$;
	CREATE TABLE cron.job (jobid bigint, schedule text, command text, database text, username text, active bool);
	INSERT INTO cron.job VALUES (1, '* * * * *', 'CALL cleanup_run()', 'app', 'postgres', true)});
is(findings('app'), '', 'a table cron.job is not that of pg_cron');
$node->safe_psql('app', q{
	SET ROLE mallory;
	ALTER TABLE cron.job RENAME TO jobs;
	CREATE VIEW cron.job AS SELECT jobid, schedule, cron.trap(command) AS command, database, username, active FROM cron.jobs;
	SELECT count(command) FROM cron.job});
like(log_since($node, $position), qr/the trap was sprung by mallory/, 'a trap is set');
is(findings('app'), '', 'nor is a view');
unlike(log_since($node, $position), qr/the trap was sprung by postgres/, 'it is not read');

# ---- an owner of the extension who is no superuser any more ----

$node = $nodes{worker};
mkdir $node->basedir . '/elsewhere' or die $!;
$node->safe_psql('elsewhere', q{ALTER DATABASE elsewhere SET audio_cleanup.upload_dir = '} . $node->basedir . q{/elsewhere'; CREATE ROLE boss SUPERUSER});
$node->safe_psql('elsewhere', qq{
	GRANT CREATE ON SCHEMA public TO boss;
	SET ROLE boss;
	CREATE EXTENSION audio_cleanup;
	RESET ROLE;
	CREATE ROLE looker; SELECT cleanup_grant_access('looker');
	SELECT cron.schedule('of-postgres', $yearly, '$call');
	ALTER ROLE boss NOSUPERUSER});
set_conf('audio_cleanup.databases', 'elsewhere');
foreach my $call ('SELECT cleanup_status()', 'SELECT cleanup_all()', 'CALL cleanup_run()', q{SELECT cleanup_restore('a.mp3')},
	'SELECT * FROM cleanup_check()', q{SELECT cleanup_hold('a.mp3')}, 'SELECT cleanup_claim_upload_dir()')
{
	my ($rc, $stdout, $stderr) = $node->psql('elsewhere', $call);
	like($stderr, qr/ERROR:  owner "boss" of extension "audio_cleanup" is not a superuser/, "$call: whoever owns our tables must be a superuser");
}
$node->safe_psql('elsewhere', 'ALTER ROLE boss SUPERUSER');
my $id = $node->safe_psql('elsewhere', q{SELECT jobid FROM cron.job WHERE jobname = 'of-postgres'});
is(findings('elsewhere', $_), sprintf($twice, $id, 'elsewhere') =~ s/\Q* * * * *\E/0 0 1 1 */r, 'the jobs are seen: ' . ($_ || 'superuser'))
  foreach '', 'SET ROLE looker;';

# ---- the minute has come ----

# What pg_cron said of the first run of each job, all of it: way => database => [ "status|message", ... ].
my %said;

sub read_details
{
	my ($way) = @_;

	foreach my $line (split /\n/, $nodes{$way}->safe_psql($way eq 'worker' ? 'elsewhere' : 'postgres', q{
			SELECT DISTINCT ON (jobid) database, status, replace(return_message, E'\n', ' ') FROM cron.job_run_details
			WHERE status NOT IN ('starting', 'running', 'sending', 'connecting') ORDER BY jobid, runid}))
	{
		my ($database, $result) = split /\|/, $line, 2;
		my $results = $said{$way}{$database} ||= [];
		push @$results, $result if !@$results || $results->[-1] ne $result;
	}
	return;
}

# database => how it has to end
my %end = (postgres => 'succeeded', app => 'succeeded', refused => 'failed');
my %expected = (connection => [qw(app postgres refused)], worker => [qw(app refused)], bare_connection => ['postgres'], bare_worker => ['postgres']);

sub is_over
{
	my ($way) = @_;

	read_details($way);
	return !grep { (($said{$way}{$_} || [''])->[-1]) !~ /^$end{$_}/ } @{ $expected{$way} };
}

ok(wait_until(sub { !grep { !is_over($_) } keys %nodes }), 'pg_cron has run its jobs, and told how they ended');

foreach my $way (sort keys %nodes)
{
	my $details = $said{$way};

	$node = $nodes{$way};
	note(explain($details));
	is_deeply([ sort keys %$details ], $expected{$way}, "$way: each job");
	if ($details->{postgres})
	{
		my $n = $way eq 'connection' ? 5 : 24;

		is_deeply([ grep { !/^succeeded\|/ } @{ $details->{postgres} } ], [], "$way: it succeeded, and nothing else was ever said of it");
		is(names(upload_dir($node)), 'wanted.mp3', "$way: the orphans are gone");
		is($node->safe_psql('postgres', 'SELECT status, trigger, files, deleted FROM cleanup_runs ORDER BY run_id LIMIT 1'), "done|sql|$n|$n",
			"$way: in several batches");
		ok(!-e upload_dir($node) . '/.audio_cleanup/trash', "$way: nothing is left to do");
	}
	if ($details->{app})
	{
		my $dir = $node->basedir . '/app';
		is_deeply([ grep { !/^succeeded\|/ } @{ $details->{app} } ], [], "$way: in another database, too");
		is(names($dir), 'file11.mp3 file12.mp3', "$way: the orphans are gone there");
		is($node->safe_psql('app', 'SELECT status, trigger, files, deleted FROM cleanup_runs ORDER BY run_id LIMIT 1'), 'done|sql|10|10',
			"$way: as its history says");
	}
	if ($details->{refused})
	{
		like($details->{refused}[-1], qr/^failed\|ERROR: +every registered source is empty/, "$way: a run that is refused has failed, for the reason that we give");
		is(scalar keys %{ visible_files($node->basedir . '/refused') }, 10, "$way: its files are untouched");
		like($node->safe_psql('refused', 'SELECT status, trigger, files, message FROM cleanup_runs ORDER BY run_id LIMIT 1'),
			qr/^blocked\|sql\|0\|every registered source is empty: 10 of 10 files would be deleted/, "$way: its history agrees");
	}
	$node->stop;
	is(log_lines($node, qr/PANIC:|TRAP:|signal \d+/), '', "$way: no process has died");
}

done_testing();
