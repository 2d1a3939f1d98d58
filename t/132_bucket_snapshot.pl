# A worker, and a CALL, that wait for the server of a bucket keep VACUUM from nothing: they have neither a snapshot nor the
# number of a transaction meanwhile.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $gateway = start_gateway();
my $proxy = start_proxy($gateway);
my ($node) = start_bucket($gateway, 'bucket_snapshot', proxy => $proxy,
	conf => "audio_cleanup.s3_timeout = '10min'\naudio_cleanup.max_delete_percent = 100\n");
my $log = "$PostgreSQL::Test::Utils::log_path/s3_proxy.log";

# Sessions of ours that are at work, and what they keep.
sub look
{
	my ($who) = @_;
	return sql("SELECT coalesce(string_agg(concat_ws(' ', 'xmin ' || backend_xmin, 'xid ' || backend_xid), ', '), '')
		FROM pg_stat_activity WHERE $who AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)");
}

# Holds one request after another until the work is over.  Returns [request, what is kept] of each.
sub step_through
{
	my ($who, $begin) = @_;
	my $is_over = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE $who)";
	my @steps;

	set_rule($proxy, match => '.', do => 'hold', times => 1);
	$begin->();
	is_held($proxy);
	while (wait_until(sub { -e "$proxy->{rules}/held" || sql($is_over) eq 't' }) && -e "$proxy->{rules}/held")
	{
		my ($request) = slurp_file($log) =~ /.*^(\S+ \S+)$/ms;

		push @steps, [ $request, look($who) ];
		set_rule($proxy, match => '.', do => 'hold', times => 1);
	}
	release($proxy);
	return @steps;
}

sub put { return put_objects($gateway, 'audio/up', @_) }
# A step gives the lease back when it has recorded what it has done, and so its transaction has a number.
sub kept { return [ grep { !m{^DELETE .*/lease\?versionId=\S+ xid \d+$} } map { "$_->[0] $_->[1]" } grep { $_->[1] ne '' } @_ ] }

put('wanted.mp3');
sql('CALL cleanup_run()');

# ---- a worker ----

my $worker = q{backend_type = 'audio_cleanup drain'};
foreach my $days (0, 7)
{
	my $session = $node->background_psql('postgres');
	my @steps;

	put(map { "worker$days.$_.mp3" } 1 .. 4);
	set_setting($node, 'backup_retention_days', $days);
	$session->query_safe('BEGIN; SELECT cleanup_all()');
	@steps = step_through($worker, sub { $session->query_safe('COMMIT') });
	$session->quit;
	ok(wait_for_drain($node), 'the worker has done its work');
	cmp_ok(scalar @steps, '>=', $days ? 5 : 8, scalar @steps . " of its requests were held, backups: $days");
	is_deeply(kept(@steps), [], '... and nothing was kept meanwhile');
	is(sql('SELECT string_agg(DISTINCT state, NULL) FROM cleanup_files WHERE run_id = (SELECT max(run_id) FROM cleanup_runs)'),
		$days ? 'trashed' : 'deleted', '... which it has done well');
}

# ---- a CALL ----

my $call = q{query ~ '^CALL' AND state = 'active'};
foreach my $days (0, 7)
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my @steps;

	put(map { "call$days.$_.mp3" } 1 .. 4);
	set_setting($node, 'backup_retention_days', $days);
	@steps = step_through($call, sub { $session->query_until(qr/^begun$/m, "\\echo begun\nCALL cleanup_run();\n") });
	$session->quit;
	cmp_ok(scalar @steps, '>=', $days ? 8 : 11, scalar @steps . " of its requests were held, backups: $days");
	is_deeply(kept(@steps), [], '... and nothing was kept meanwhile') or diag explain [ map { "@$_" } @steps ];
	is(sql('SELECT string_agg(DISTINCT state, NULL) FROM cleanup_files WHERE run_id = (SELECT max(run_id) FROM cleanup_runs)'),
		$days ? 'trashed' : 'deleted', '... which it has done well');
}

is_deeply(keys_of($gateway, 'audio', 'up/'), ['wanted.mp3'], 'what is wanted is there');
is(log_lines($node, qr/PANIC:|TRAP:|terminated by signal/), '', 'no process has died');
done_testing();
