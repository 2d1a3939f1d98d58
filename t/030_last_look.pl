# Writers that begin too late to be waited for, and rows that are committed
# between the condemnation and the COMMIT: their files stay, or come back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('last_look', conf => "max_worker_processes = 16\n");
my $dir = upload_dir($node);
my %wanted = %{ claim_directory($node, 'keep.mp3') };

sub insert_row { return "INSERT INTO sessions (audio_url) VALUES ('$_[0]');" }

# Begin a transaction and leave it open.
# A run that has to wait; returns when it does.
sub start_waiting_run
{
	my $run = $node->background_psql('postgres');
	$run->query_until(qr/begun/, "\\echo begun\nSELECT 'over' FROM cleanup_all(force => true);\n");
	ok($node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%cleanup_all(force%' AND wait_event = 'virtualxid'}),
		'the run waits for a writer');
	return $run;
}

sub finish_run
{
	my ($run) = @_;
	$run->query_until(qr/over/, '');
	$run->quit;
	return;
}

sub comes_back { my ($file) = @_; return wait_until(sub { -e "$dir/$file" }); }

foreach my $days (0, 30)
{
	my $with = $days ? 'with backup' : 'without backup';
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = $days");

	# ---- a writer that begins while the run waits for another one ----

	$wanted{"begun$days.mp3"} = put_file($dir, "begun$days.mp3");
	put_file($dir, "orphan$days.mp3");
	my $first = begin_session($node, insert_row("elsewhere$days.mp3"));
	my $run = start_waiting_run();
	my $second = begin_session($node, insert_row("begun$days.mp3"));
	end_session($first);
	finish_run($run);
	end_session($second);
	ok(comes_back("begun$days.mp3"), "$with: a file is kept whose row was in flight when it was condemned");
	ok(!-e "$dir/orphan$days.mp3", "$with: another one is not");

	# ---- a row that is committed between the condemnation and the COMMIT ----

	$wanted{"between$days.mp3"} = put_file($dir, "between$days.mp3");
	my $cleaner = begin_session($node, 'SELECT cleanup_all(force => true)');
	add_rows($node, "between$days.mp3");
	end_session($cleaner);
	ok(comes_back("between$days.mp3"), "$with: a file is kept whose row was committed before the run was");

	# ---- the last look gives up; nobody cleans any more ----

	$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '100ms'});
	my $position = log_position($node);
	$wanted{"slow$days.mp3"} = put_file($dir, "slow$days.mp3");
	$cleaner = begin_session($node, 'SELECT cleanup_all(force => true)');
	my $slow = begin_session($node, insert_row("slow$days.mp3"));
	end_session($cleaner);
	ok(!-e "$dir/slow$days.mp3", "$with: a file is captured whose row is in flight");
	ok(wait_until(sub { log_since($node, $position) =~ /1 condemned files are left as they are/ }),
		"$with: the worker gives up waiting for the row");
	end_session($slow);
	ok(comes_back("slow$days.mp3"), "$with: it comes back without another run");
	$node->safe_psql('postgres', q{ALTER DATABASE postgres RESET audio_cleanup.writer_wait});
}
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET audio_cleanup.backup_retention_days');

# ---- the same in a CALL, which drains by itself ----

# long enough to be seen on a busy machine
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '10s'});
$wanted{'call.mp3'} = put_file($dir, 'call.mp3');
my $before = begin_session($node, insert_row('elsewhere.mp3'));
my $call = $node->background_psql('postgres');
$call->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run(force => true);\n\\echo over\n");
ok($node->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL cleanup_run%' AND wait_event = 'virtualxid'}),
	'a CALL waits for a writer');
my $late = begin_session($node, insert_row('call.mp3'));
end_session($before);
$call->query_until(qr/over/, '');
$call->quit;
end_session($late);
ok(comes_back('call.mp3'), 'what it could not look at a last time comes back without another run');
$node->safe_psql('postgres', q{ALTER DATABASE postgres RESET audio_cleanup.writer_wait});

# ---- a partition that joins the source while the run waits ----

$node->safe_psql('postgres', q{
	CREATE TABLE parts (file text) PARTITION BY RANGE (file);
	CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM ('a') TO ('n');
	CREATE TABLE parts_n (file text);
	SELECT cleanup_add_source('parts', '{file}');
});
$wanted{'partition.mp3'} = put_file($dir, 'partition.mp3');
my $first = begin_session($node, q{INSERT INTO parts VALUES ('a');});
my $run = start_waiting_run();
$node->safe_psql('postgres', q{ALTER TABLE parts ATTACH PARTITION parts_n FOR VALUES FROM ('n') TO ('z')});
my $second = begin_session($node, q{INSERT INTO parts_n VALUES ('partition.mp3');});
end_session($first);
finish_run($run);
end_session($second);
ok(comes_back('partition.mp3'), 'a row in flight in a new partition protects its file');

# ---- a trigger, fired by on_failed => clear, that archives the name ----

$node->safe_psql('postgres', q{
	CREATE TABLE archive (file text);
	CREATE TABLE cleared (LIKE sessions INCLUDING DEFAULTS INCLUDING INDEXES);
	CREATE FUNCTION archive() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN INSERT INTO public.archive VALUES (old.audio_url); RETURN new; END';
	CREATE TRIGGER archive BEFORE UPDATE ON cleared FOR EACH ROW EXECUTE FUNCTION archive();
	SELECT cleanup_add_source('archive', '{file}');
	SELECT cleanup_add_source('cleared', on_failed => 'clear');
	INSERT INTO cleared (audio_url, status, updated_at) VALUES ('archived.mp3', 'failed', now() - interval '30 days');
});
$wanted{'archived.mp3'} = put_file($dir, 'archived.mp3');
$node->safe_psql('postgres', 'SELECT cleanup_all(force => true)');
is($node->safe_psql('postgres', 'SELECT file FROM archive'), 'archived.mp3', 'a trigger has archived the name of a cleared file');
ok(comes_back('archived.mp3'), 'so the file is kept');

ok(wait_for_drain($node), 'all runs are done');
is_deeply(visible_files($dir), \%wanted, 'what is wanted is there, and nothing else');

$node->stop;
done_testing();
