# PREPARE TRANSACTION across a restart; VACUUM; and many at once.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('concurrency', conf => "max_prepared_transactions = 10\nlog_statement = none\n");
my $dir = upload_dir($node);
my @wanted = ('wanted1.mp3', 'wanted2.mp3');
my %wanted = %{ claim_directory($node, @wanted) };

# ---- COMMIT PREPARED ----

my %orphans = map { $_ => put_file($dir, $_) } map { "orphan$_.mp3" } 1 .. 4;
my $all_files = visible_files($dir);

$node->safe_psql('postgres', q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'p';});
is_deeply(visible_files($dir), $all_files, 'PREPARE TRANSACTION touches nothing');
$node->restart;
is_deeply(visible_files($dir), $all_files, 'nor does a restart');

my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SET audio_cleanup.writer_wait = '100ms'; SELECT cleanup_all();});
isnt($rc, 0, 'another run has to wait for it');
like($stderr, qr/another cleanup run is under way.*[Pp]repared transaction/s, 'and says that a prepared transaction is in its way');

# meanwhile somebody refers to one of the files
add_rows($node, 'orphan1.mp3');
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state = 'pending'}), 4, 'COMMIT PREPARED commits the rows');
$wanted{'orphan1.mp3'} = delete $orphans{'orphan1.mp3'};
is_deeply(violations($node, $dir, { wanted => \%wanted, unwanted => \%orphans }), [], 'every file is accounted for');

$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the next run drains them');
is_deeply(violations($node, $dir, { wanted => \%wanted, unwanted => \%orphans, final => 1 }), [], 'all is well');
is_deeply(visible_files($dir), \%wanted, 'the orphans are gone, but for the one that is referred to');
is($node->safe_psql('postgres', q{SELECT state FROM cleanup_files WHERE file = 'orphan1.mp3'}), 'skipped', 'whose row says so');

# ---- ROLLBACK PREPARED ----

%orphans = map { $_ => put_file($dir, $_) } map { "again$_.mp3" } 1 .. 4;
$all_files = visible_files($dir);
$node->safe_psql('postgres', q{BEGIN; SELECT cleanup_all(); PREPARE TRANSACTION 'q';});
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'q'});
is_deeply(visible_files($dir), $all_files, 'ROLLBACK PREPARED leaves no trace in the directory');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE file LIKE 'again%'}), 0, 'nor in the history');

# ---- a prepared writer ----

$node->safe_psql('postgres', q{BEGIN; INSERT INTO sessions (audio_url) VALUES ('again1.mp3'); PREPARE TRANSACTION 'w';});
foreach my $when ('before', 'after')
{
	($rc, $stdout, $stderr) = $node->psql('postgres', q{SET audio_cleanup.writer_wait = '100ms'; SELECT cleanup_all();});
	isnt($rc, 0, "$when a restart: a run gives up waiting for a prepared writer");
	like($stderr, qr/gave up waiting for a transaction that writes to "sessions".*Nothing was deleted.*[Pp]repared transaction/s,
		"$when a restart: and says for whom it waited");
	is_deeply(visible_files($dir), $all_files, "$when a restart: nothing was deleted");
	$node->restart if $when eq 'before';
}
$node->safe_psql('postgres', q{COMMIT PREPARED 'w'});
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'when it has committed the run goes on');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted, 'again1.mp3' ], 'its file lives, the others are gone');

# ---- VACUUM is not waited for ----

put_file($dir, 'vacuum.mp3');
$node->safe_psql('postgres', q{
	CREATE TABLE big (file text, padding text) WITH (autovacuum_enabled = off);
	INSERT INTO big SELECT 'big' || i || '.mp3', repeat('x', 500) FROM generate_series(1, 5000) i;
	SELECT cleanup_add_source('big', '{file}');
	DELETE FROM big WHERE ctid < '(300,1)';
});
my $vacuum = $node->background_psql('postgres', on_error_stop => 0);
$vacuum->query_until(qr/^begun$/m, "SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1;\n\\echo begun\nVACUUM big;\n");
my $is_vacuuming = q{SELECT count(*) > 0 FROM pg_stat_progress_vacuum WHERE phase <> 'initializing'};
ok($node->poll_query_until('postgres', $is_vacuuming), 'a slow VACUUM has begun');
is(sql_json($node, q{SET audio_cleanup.writer_wait = '1s'; SELECT cleanup_all();})->{result}{orphaned_files_count}, 1,
	'a run does not wait for it');
is($node->safe_psql('postgres', $is_vacuuming), 't', 'it still goes on');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_progress_vacuum});
$vacuum->quit;
ok(wait_for_drain($node), 'the run is done');

# ---- many at once ----

# A writer commits a row and its file, or only leaves the file.  No file is too young.
my $seconds = 12;
my $scripts = $node->basedir;
$node->safe_psql('postgres', qq{
	ALTER DATABASE postgres SET audio_cleanup.orphaned_file_retention_hours = 0;
	ALTER DATABASE postgres SET audio_cleanup.writer_wait = '60s';
	CREATE SEQUENCE uploads;
	CREATE PROCEDURE upload(prefix text) LANGUAGE plpgsql AS \$\$
	DECLARE
		name text := prefix || nextval('uploads') || '.mp3';
	BEGIN
		INSERT INTO sessions (audio_url) VALUES (name);
		EXECUTE format('COPY (SELECT %L) TO %L', name, '$dir/' || name);
	END
	\$\$;
});
append_to_file("$scripts/wanted.sql", "CALL upload('keep');\n");
append_to_file("$scripts/orphan.sql", "BEGIN;\nCALL upload('drop');\nROLLBACK;\n");
append_to_file("$scripts/all.sql", "SELECT cleanup_all(force => true);\n");
append_to_file("$scripts/call.sql", "CALL cleanup_run(force => true);\n");
append_to_file("$scripts/abort.sql", "BEGIN;\nSELECT cleanup_all(force => true);\nROLLBACK;\n");
append_to_file("$scripts/look.sql", "SELECT cleanup_status();\n");

my %pgbench;
my %arguments = (
	writers => [ '-c', 3, '-f', "$scripts/wanted.sql\@3", '-f', "$scripts/orphan.sql\@1", '-R', '300' ],
	cleaners => [ '-c', 4, '-f', "$scripts/all.sql\@4", '-f', "$scripts/call.sql\@2", '-f', "$scripts/abort.sql\@1",
		'-f', "$scripts/look.sql\@1" ]);
foreach my $who (sort keys %arguments)
{
	my ($in, $out) = ('', '');
	$pgbench{$who} = { out => \$out, run => IPC::Run::start(
		[ 'pgbench', '-n', '-T', $seconds, '-h', $node->host, '-p', $node->port, @{ $arguments{$who} }, 'postgres' ],
		'<', \$in, '>&', \$out, IPC::Run::timeout($seconds + 120)) };
}
foreach my $who (sort keys %pgbench)
{
	ok($pgbench{$who}{run}->finish, "pgbench: all $who came through")
	  or diag(${ $pgbench{$who}{out} });
	unlike(${ $pgbench{$who}{out} }, qr/ERROR|FATAL|aborted/, "pgbench: no errors for $who");
	my ($n) = ${ $pgbench{$who}{out} } =~ /number of transactions actually processed: (\d+)/;
	cmp_ok($n, '>', 1, "pgbench: $who did $n transactions");
}

$node->safe_psql('postgres', 'CALL cleanup_run(force => true)');
ok(wait_for_drain($node), 'a last run');

my %files = (wanted => { map { $_ => "$_\n" } split /\n/, $node->safe_psql('postgres', q{SELECT audio_url FROM sessions WHERE audio_url LIKE 'keep%'}) },
	unwanted => { map { $_ => '' } split /\n/, $node->safe_psql('postgres', q{SELECT DISTINCT file FROM cleanup_files WHERE file LIKE 'drop%'}) });
cmp_ok(scalar keys %{ $files{wanted} }, '>', 100, 'many files were uploaded: ' . keys %{ $files{wanted} });
cmp_ok(scalar keys %{ $files{unwanted} }, '>', 20, 'and many were orphans: ' . keys %{ $files{unwanted} });
my $wrong = violations($node, $dir, { %files, final => 1 });
is(scalar @$wrong, 0, 'every wanted file is there, every orphan was deleted once')
  or diag(join "\n", @$wrong[ 0 .. ($#$wrong > 9 ? 9 : $#$wrong) ]);
is(scalar(grep { /^drop/ } keys %{ visible_files($dir) }), 0, 'no orphan is left');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state NOT IN ('deleted', 'skipped')}), 0, 'no row is stuck');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT status, ' ') FROM cleanup_runs}), 'done', 'no run is');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM cleanup_runs r WHERE r.deleted <>
	(SELECT count(*) FROM cleanup_files f WHERE f.run_id = r.run_id AND f.state = 'deleted')}), 0, 'the figures of the runs are right');

$node->stop;
is(log_lines($node, qr/PANIC:|signal \d+|WARNING:  (?!no background worker is free)/), '', 'no process has died, nothing was warned of but a lack of workers');
done_testing();
