# A file that cannot be moved into the trash is deleted in its place, where no
# last look could put it back: so it is looked at before, whoever begins to need
# it while other files of its run are captured.

use strict;
use warnings;

use Errno qw(EDQUOT ENOSPC EXDEV);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('in_place', start => 0, conf => <<'END');
audio_cleanup.max_delete_percent = 100
audio_cleanup.writer_wait = '3s'
END
my $dir = upload_dir($node);
my $round = 0;
my %wanted;

start_with_faults($node);
make_schema($node);
$wanted{'keep.mp3'} = put_file($dir, 'keep.mp3');
add_rows($node, 'keep.mp3');
$node->safe_psql('postgres', q{
	CREATE TABLE archive (file text);
	CREATE TABLE cleared (LIKE sessions INCLUDING DEFAULTS INCLUDING INDEXES);
	CREATE FUNCTION archive() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN INSERT INTO public.archive VALUES (old.audio_url); RETURN new; END';
	CREATE TRIGGER archive BEFORE UPDATE ON cleared FOR EACH ROW EXECUTE FUNCTION archive();
	SELECT cleanup_add_source('archive', '{file}');
	SELECT cleanup_add_source('cleared', on_failed => 'clear');
	SELECT cleanup_all();
});
ok(wait_for_drain($node), 'the directory is claimed');

sub insert_row { return "INSERT INTO sessions (audio_url) VALUES ('$_[0]')"; }

# A transaction that is left open.
sub begin
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres');
	$session->query_safe("BEGIN; $sql");
	return $session;
}

sub commit
{
	my ($session) = @_;
	$session->query_safe('COMMIT');
	$session->quit;
	return;
}

# A failed session, whose file is condemned first, and can be moved; an orphan that cannot, and is wanted in a moment;
# another one that is not.
sub prepare
{
	my ($errnum) = @_;
	my $file = sprintf 'p%d/bound.mp3', ++$round;

	clear_fault($node);
	put_files($dir, "first$round.mp3", "other$round/unbound.mp3");
	$node->safe_psql('postgres', "INSERT INTO sessions (audio_url, status, updated_at) VALUES ('first$round.mp3', 'failed', '2024-01-01')");
	$wanted{$file} = put_file($dir, $file);
	set_fault($node, "renameat2 errno 0 $errnum bound.mp3");
	return $file;
}

sub look_after
{
	my ($name, $file, $error) = @_;

	ok(wait_for_drain($node), "$name: the run comes to its end");
	ok(fault_fired($node) > 0, "$name: the file could not be moved");
	is($node->safe_psql('postgres', "SELECT file FROM cleanup_files WHERE run_id = (SELECT max(run_id) FROM cleanup_files) ORDER BY file_id LIMIT 1"),
		"first$round.mp3", "$name: another file was the first");
	ok(-e "$dir/$file", "$name: the file is in its place");
	is($node->safe_psql('postgres', "SELECT state || ': ' || error FROM cleanup_files WHERE file = '$file'"),
		"skipped: $error", "$name: and its row says why");
	is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT state, ' ') FROM cleanup_files WHERE file IN ('first$round.mp3', 'other$round/unbound.mp3')"),
		'deleted', "$name: the others are gone");
	return;
}

# ---- a row that is committed between the condemnation and the COMMIT ----

foreach my $errnum (EXDEV, ENOSPC, EDQUOT)
{
	my $file = prepare($errnum);
	my $cleaner = begin('SELECT cleanup_all(force => true)');

	add_rows($node, $file);
	commit($cleaner);
	look_after("a row before the COMMIT, errno $errnum", $file, 'it is referred to again');
}

# ---- a hold that is made then ----

my $held = prepare(EXDEV);
my $cleaner = begin('SELECT cleanup_all(force => true)');
$node->safe_psql('postgres', "SELECT cleanup_hold('$held')");
commit($cleaner);
look_after('a hold', $held, 'it is held');

# ---- a trigger that archives the name when the session is cleared ----

my $archived = prepare(EXDEV);
$node->safe_psql('postgres', "INSERT INTO cleared (audio_url, status, updated_at) VALUES ('$archived', 'failed', '2024-01-01')");
$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
look_after('a trigger', $archived, 'it is referred to again');

# ---- a writer that begins while a CALL waits for another one ----

my $late = prepare(EXDEV);
my $before = begin(insert_row('elsewhere.mp3'));
my $call = $node->background_psql('postgres', on_error_stop => 0);
$call->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run(force => true);\n\\echo over\n");
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL cleanup_run%' AND wait_event = 'virtualxid'}),
	'a CALL waits for a writer');
my $writer = begin(insert_row($late));
commit($before);
$call->query_until(qr/over/, '');
$call->quit;
ok(-e "$dir/$late", 'a CALL leaves a file alone whose row is in flight');
commit($writer);
look_after('a row in flight', $late, 'it is referred to again');

# ---- nobody needs them: they are deleted in their places, all of a run after one look ----

clear_fault($node);
$round++;
put_files($dir, "first$round.mp3", map { "q$_/bound.mp3" } 1 .. 50);
$node->safe_psql('postgres', "INSERT INTO sessions (audio_url, status, updated_at) VALUES ('first$round.mp3', 'failed', '2024-01-01')");
set_fault($node, 'renameat2 errno 0 ' . EXDEV . ' bound.mp3');
$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
ok(wait_for_drain($node), 'a run of files that nobody needs comes to its end');
is($node->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE file LIKE 'q%/bound.mp3' AND state = 'deleted' AND error IS NULL AND freed > 0"),
	50, 'they are deleted, and counted');

# ---- the worker is killed when it has deleted one of them: its row says so ----

clear_fault($node);
$round++;
put_files($dir, "first$round.mp3", 'r1/bound.mp3', 'r2/bound.mp3');
$node->safe_psql('postgres', "INSERT INTO sessions (audio_url, status, updated_at) VALUES ('first$round.mp3', 'failed', '2024-01-01')");
set_fault($node, 'renameat2 errno 0 ' . EXDEV . " bound.mp3\nunlinkat killafter 0 0 bound.mp3");
my $position = log_position($node);
$node->psql('postgres', 'SELECT cleanup_all(force => true)');
ok(comes_back_after($node, $position), 'the server is restarted');
is(scalar(grep { -e "$dir/$_" } 'r1/bound.mp3', 'r2/bound.mp3'), 1, 'one of two files is deleted');
$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
ok(wait_for_drain($node), 'the next call goes on');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT state, ' '), min(freed) > 0 FROM cleanup_files WHERE file LIKE 'r%/bound.mp3'}), 'deleted|t',
	'both have a row that says so');

is_deeply(visible_files($dir), \%wanted, 'what is wanted is there, and nothing else');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_runs WHERE status <> 'done'}), 0, 'each run is done');

clear_fault($node);
$node->stop;
done_testing();
