# Each brake in one table: what a preview reports is what stops the real run.
#
# For each brake, by each call: the preview deletes nothing, has no success,
# names the brake, and has in `errors` the message that the real run raises.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('previews', start => 0, init => [ allows_streaming => 1 ]);
my $dir = upload_dir($node);
my $claim = "$dir/.audio_cleanup/claim";
my $clock = $node->basedir . '/clock_of_files';
my $backups = $node->basedir . '/backups';
{
	local $ENV{LD_PRELOAD} = build_shim('statx_shim');
	local $ENV{CLOCK_OF_FILES} = $clock;
	$node->start;
}
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));
$node->safe_psql('postgres', q{
	CREATE ROLE app;
	GRANT CREATE ON SCHEMA public TO app;
	SELECT cleanup_all()});
ok(wait_for_drain($node), 'the directory is claimed');
my $text_of_claim = read_file($claim);
mkdir $backups, 0700 or die $!;

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

sub doing
{
	my (@statements) = @_;
	return sub { $node->safe_psql('postgres', join ';', @statements) };
}

# A relation that is a source for one case only.
sub source
{
	my ($name, @statements) = @_;
	return doing(@statements, "SELECT cleanup_add_source('$name', '{file}')");
}

sub no_source
{
	my ($name, $kind) = @_;
	return doing("SELECT cleanup_drop_source(source) FROM cleanup_sources WHERE source_name = 'public.$name'", "DROP $kind IF EXISTS $name");
}

sub write_claim
{
	my ($text) = @_;
	return sub {
		unlink "$claim.new";
		append_to_file("$claim.new", $text);
		rename "$claim.new", $claim or die $!;
	};
}

sub set_mode
{
	my ($mode, $path) = @_;
	return sub { chmod $mode, $path or die "$path: $!" };
}

my $many = sub { put_files($dir, map { "many/$_.mp3" } 1 .. $_[0]) };
my $unattended = "SET application_name = 'pg_cron'";
my $plain_file = $node->basedir . '/plain_file';
append_to_file($plain_file, '');
my $locker;
my $conf = $node->data_dir . '/postgresql.conf';

# brake, what is special about it, how it comes about, how it goes away, and further parts: `set` for the session that
# calls, `in` a transaction, `on` another server
my @cases = (
	[ 'settings', 'a unit', doing(q{ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = '30 days'}),
		doing('ALTER DATABASE postgres RESET audio_cleanup.backup_retention_days') ],
	[ 'settings', 'a misspelled name', doing('ALTER ROLE ALL SET audio_cleanup.orphan_retention_hours = 720'),
		doing('ALTER ROLE ALL RESET audio_cleanup.orphan_retention_hours') ],
	[ 'settings', 'in the configuration file', sub { append_to_file($conf, "audio_cleanup.orphaned_file_retention_hours = 30d\n") },
		sub { my $text = slurp_file($conf) =~ s/^.*= 30d\n//mr; unlink $conf; append_to_file($conf, $text) } ],
	[ 'source', 'locked', sub { $locker = begin_session($node, 'LOCK TABLE sessions') }, sub { end_session($locker) }, set => q{SET audio_cleanup.writer_wait = '200ms'} ],
	[ 'no_source', '', doing(q{SELECT cleanup_drop_source('sessions')}), doing(q{SELECT cleanup_add_source('sessions')}) ],
	[ 'source', 'a column is gone', doing('ALTER TABLE sessions RENAME audio_url TO url'), doing('ALTER TABLE sessions RENAME url TO audio_url') ],
	[ 'source', 'a table is gone', source('gone', 'CREATE TABLE gone (id int, file text)', q{INSERT INTO gone VALUES (1, 'wanted.mp3')}),
		no_source('gone', 'TABLE'), then => doing('DROP TABLE gone') ],
	[ 'source', 'a right is gone', source('seen', 'CREATE VIEW seen AS SELECT id, audio_url AS file FROM sessions', 'GRANT SELECT ON sessions TO app', 'ALTER VIEW seen OWNER TO app'),
		no_source('seen', 'VIEW'), then => doing('REVOKE SELECT ON sessions FROM app') ],
	[ 'source', 'a policy hides rows', source('secret', 'CREATE TABLE secret (id int, file text)', q{INSERT INTO secret VALUES (1, 'wanted.mp3')}, 'ALTER TABLE secret OWNER TO app'),
		no_source('secret', 'TABLE'), then => doing('ALTER TABLE secret ENABLE ROW LEVEL SECURITY', 'ALTER TABLE secret FORCE ROW LEVEL SECURITY') ],
	[ 'source', 'unlogged', doing('ALTER TABLE sessions SET UNLOGGED'), doing('ALTER TABLE sessions SET LOGGED') ],
	[ 'source', 'a function of somebody else', source('called', 'CREATE FUNCTION f() RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true',
			'CREATE VIEW called AS SELECT id, audio_url AS file FROM sessions WHERE f()'),
		sub { no_source('called', 'VIEW')->(); doing('DROP FUNCTION f()')->() }, then => doing('ALTER FUNCTION f() OWNER TO app') ],
	[ 'empty_sources', '', doing('DELETE FROM sessions'), sub { add_rows($node, 'wanted.mp3') } ],
	[ 'source_emptied', 'no row any more', sub {
			source('loaded', 'CREATE TABLE loaded (id int, file text)', q{INSERT INTO loaded VALUES (1, 'wanted.mp3')})->();
			$node->safe_psql('postgres', 'CALL cleanup_run()');
		}, no_source('loaded', 'TABLE'), then => doing('DELETE FROM loaded') ],
	[ 'source_emptied', 'no file any more', sub {
			put_files($dir, 'loaded.mp3');
			source('loaded', 'CREATE TABLE loaded (id int, file text)', q{INSERT INTO loaded VALUES (1, 'loaded.mp3')})->();
			$node->safe_psql('postgres', 'CALL cleanup_run()');
		}, no_source('loaded', 'TABLE'), then => doing(q{UPDATE loaded SET file = '17'}) ],
	[ 'nothing_referenced', '', sub { doing(q{UPDATE sessions SET audio_url = 'other.mp3'})->(); $many->(12) }, doing(q{UPDATE sessions SET audio_url = 'wanted.mp3'}) ],
	[ 'max_delete_percent', '', sub { $many->(120) }, sub {} ],
	[ 'max_delete_percent', 'unattended', sub { $many->(20) }, sub {}, set => $unattended ],
	[ 'unregistered', 'unattended', doing('CREATE TABLE notes (id int, attachment text)', q{INSERT INTO notes SELECT i, 'orphan' || i || '.mp3' FROM generate_series(1, 4) i}, 'ANALYZE notes'),
		doing('DROP TABLE notes'), set => $unattended ],
	[ 'claim', 'of another database', write_claim($text_of_claim =~ s/^database=\d+$/database=1/mr), write_claim($text_of_claim) ],
	[ 'claim', 'unreadable', write_claim('nonsense'), write_claim($text_of_claim) ],
	[ 'claim', 'gone', sub { rename $claim, "$claim.away" or die $! }, sub { rename "$claim.away", $claim or die $! } ],
	[ 'claim', 'not safe', set_mode(0777, "$dir/.audio_cleanup"), set_mode(0700, "$dir/.audio_cleanup") ],
	[ 'upload_dir', 'missing', sub {}, sub {}, set => q{SET audio_cleanup.upload_dir = '/nowhere/at/all'} ],
	[ 'upload_dir', 'the root', sub {}, sub {}, set => q{SET audio_cleanup.upload_dir = '/'} ],
	[ 'upload_dir', 'no directory', sub {}, sub {}, set => "SET audio_cleanup.upload_dir = '$plain_file'" ],
	[ 'upload_dir', 'around the data directory', sub {}, sub {}, set => "SET audio_cleanup.upload_dir = '" . $node->basedir . "'" ],
	[ 'upload_dir', q{of PostgreSQL}, sub {}, sub {}, set => q{SET audio_cleanup.upload_dir = 'base'} ],
	[ 'upload_dir', 'not writable', set_mode(0500, $dir), set_mode(0700, $dir) ],
	[ 'upload_dir', 'a folder not readable', sub { mkdir "$dir/closed" or die $!; chmod 0, "$dir/closed" }, sub { rmdir "$dir/closed" or die $! } ],
	[ 'backup_dir', 'missing', sub {}, sub {}, set => q{SET audio_cleanup.backup_retention_days = 1; SET audio_cleanup.backup_dir = '/nowhere/at/all'} ],
	[ 'backup_dir', 'open to others', set_mode(0777, $backups), set_mode(0700, $backups),
		set => "SET audio_cleanup.backup_retention_days = 1; SET audio_cleanup.backup_dir = '$backups'" ],
	[ 'clock', '', sub { append_to_file($clock, "3600\n") }, sub { unlink $clock or die $! } ],
	[ 'read_only', '', sub {}, sub {}, in => 'BEGIN READ ONLY' ],
	[ 'read_only', 'by default', sub {}, sub {}, set => 'SET default_transaction_read_only = on' ],
	[ 'isolation', 'repeatable read', sub {}, sub {}, in => 'BEGIN ISOLATION LEVEL REPEATABLE READ' ],
	[ 'isolation', 'serializable', sub {}, sub {}, in => 'BEGIN ISOLATION LEVEL SERIALIZABLE' ],
	[ 'recovery', '', sub {}, sub {}, on => $standby ]);

# SQLSTATE and message of the ERROR; the session that gets it runs `before` first
sub error_of
{
	my ($server, $before, $statement) = @_;
	my (undef, undef, $stderr) = $server->psql('postgres', "\\set VERBOSITY verbose\n$before;\n$statement");
	return $stderr =~ /ERROR:  (\w{5}): (.*)/ ? ($1, $2) : ('no error', $stderr);
}

sub agree
{
	my ($name, $brake, $server, $before, $preview, $run) = @_;
	my $answer = sql_json($server, "$before; $preview");
	my $result = $answer->{result} || $answer->{potential_cleanup};
	my ($state, $message) = error_of($server, $before, $run);

	is_deeply($answer->{blocked_by}, [$brake], "$name: $preview names it");
	ok(!$answer->{success} && $result->{dry_run}, "$name: and has no success");
	is($result->{error_count}, 1, "$name: and one error");
	like($result->{errors}[0], qr/\Q$message\E/, "$name: which is the message of the real run");
	isnt($state, 'no error', "$name: which raises it");
	return;
}

foreach my $case (@cases)
{
	my ($brake, $what, $begin, $end, %more) = @$case;
	my $name = $what ? "$brake, $what" : $brake;
	my $server = $more{on} || $node;
	my $before = $more{set} || $more{in} || 'SELECT';
	my $there;

	put_files($dir, map { "orphan$_.mp3" } 1 .. 4);
	$begin->();
	put_files($dir, map { "orphan$_.mp3" } 1 .. 4) if $more{then};
	$more{then}->() if $more{then};
	$node->wait_for_catchup($standby) if $more{on};
	$there = visible_files($dir);
	agree($name, $brake, $server, $before, @$_) foreach
	  [ 'SELECT cleanup_all(true)', 'SELECT cleanup_all()' ], [ 'SELECT cleanup_orphaned_files(true)', 'SELECT cleanup_orphaned_files()' ],
	  [ 'SELECT cleanup_status()', 'SELECT cleanup_all()' ], $more{in} ? () : [ 'CALL cleanup_run(true)', 'CALL cleanup_run()' ];
	$end->();
	is_deeply(visible_files($dir), $there, "$name: nothing was touched");
	empty_directory($dir);
	put_files($dir, 'wanted.mp3');
	$node->safe_psql('postgres', 'CALL cleanup_run()');
}

# without any of them there is nothing to report, and the run goes its way
put_files($dir, map { "orphan$_.mp3" } 1 .. 4);
my $answer = sql_json($node, 'SELECT cleanup_all(true)');
ok($answer->{success} && !exists $answer->{blocked_by}, 'a preview without a brake has success');
is(sql_json($node, 'CALL cleanup_run()')->{result}{orphaned_files_count}, 4, 'and so has the run');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'which deletes');

$_->stop foreach $standby, $node;
is(log_lines($_, qr/PANIC:|TRAP:|signal \d+/), '', 'no process has died') foreach $standby, $node;
done_testing();
