# What monitoring/ holds works: the real exporter shows every figure of
# cleanup_metrics, with its name, labels, type and value; the real Prometheus
# scrapes it, and an alert fires when a cleanup is refused.  promtool judges
# the rest.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use HTTP::Tiny;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $monitoring = "$FindBin::RealBin/../monitoring";
my $folder = "$PostgreSQL::Test::Utils::tmp_check/monitoring";
my $http = HTTP::Tiny->new(timeout => 10);
my @processes;

mkdir $folder or die "could not create $folder: $!";
$SIG{$_} = sub { exit 1 } foreach 'HUP', 'INT', 'TERM';

# Whatever happens, none of them is left; the exit code is the test's.
END
{
	my $status = $?;
	kill 'TERM', @processes;
	foreach my $pid (@processes)
	{
		kill 'KILL', $pid unless wait_until(sub { waitpid($pid, 1) != 0 });
	}
	$? = $status;
}

# start_program(NAME, {ENVIRONMENT}, COMMAND...): its output goes to a file in the folder
sub start_program
{
	my ($name, $environment, @command) = @_;
	my $pid = fork // die "could not fork: $!";

	if ($pid == 0)
	{
		$SIG{$_} = 'DEFAULT' foreach 'HUP', 'INT', 'TERM';
		@ENV{ keys %$environment } = values %$environment;
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', "$folder/$name.log";
		open STDERR, '>&', \*STDOUT;
		# no END block of the parent's in a child that could not
		exec @command or do { require POSIX; POSIX::_exit(127) };
	}
	push @processes, $pid;
	return $pid;
}

sub get
{
	my ($url) = @_;
	my $response = $http->get($url);
	return $response->{success} ? $response->{content} : '';
}

# ---- the database, and who may look at it ----

my $node = new_server('monitoring', conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.databases = 'postgres'
END
my $dir = upload_dir($node);

make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));
put_file($dir, "orphan$_.mp3", content => 'x' x 1000) foreach 1 .. 3;
put_file($dir, 'failed.mp3', content => 'x' x 50);
$node->safe_psql('postgres', q{
	INSERT INTO sessions (status, audio_url, updated_at) VALUES ('failed', 'failed.mp3', now() - interval '9 days');
	CALL cleanup_run();
	CREATE ROLE prometheus LOGIN;
	SELECT cleanup_grant_access('prometheus');
});

# another database, with a directory of its own
put_files("$dir of other", 'wanted.mp3');
$node->safe_psql('postgres', qq{
	CREATE DATABASE other;
	ALTER DATABASE other SET audio_cleanup.upload_dir = '$dir of other';
});
make_schema($node, 'other');
$node->safe_psql('other', q{
	INSERT INTO sessions (audio_url) VALUES ('wanted.mp3');
	CALL cleanup_run();
	SELECT cleanup_grant_access('prometheus');
});

# ---- the exporter ----

my $exporter_port = PostgreSQL::Test::Cluster::get_free_port();
my $exporter = "http://127.0.0.1:$exporter_port/metrics";

start_program('exporter', { DATA_SOURCE_NAME => join ',', map {
			"user=prometheus dbname=$_ sslmode=disable host=" . $node->host . ' port=' . $node->port } 'postgres', 'other' },
	'prometheus-postgres-exporter', only_ours(),
	"--web.listen-address=127.0.0.1:$exporter_port", "--extend.query-path=$monitoring/queries.yaml");

# What monitoring/README.md says for several databases; an exporter refuses to start by an argument that it does not know.
sub only_ours
{
	my $help = join '', run_command([ 'prometheus-postgres-exporter', '--help' ]);
	my @known = grep { $help =~ /--(?:\[no-\])?\Q$_\E\s/ } qw(disable-default-metrics disable-settings-metrics collector.database collector.bgwriter);

	return map { /^collector/ ? "--no-$_" : "--$_" } @known;
}

# Of our metrics: "name{label=value,...}" => value, and name => type.
sub scrape
{
	my ($text) = @_;
	my (%values, %types, %elsewhere);

	foreach my $line (split /\n/, $text)
	{
		if ($line =~ /^# TYPE (audio_cleanup_\S+) (\S+)/)
		{
			$types{$1} = $2;
		}
		elsif ($line =~ /^(audio_cleanup_\w+)\{(.*)\} (\S+)$/)
		{
			my ($name, $value) = ($1, $3);
			my %labels = $2 =~ /(\w+)="([^"]*)"/g;

			my $datname = delete $labels{datname} // '';
			delete $labels{server};
			$elsewhere{"$datname $name"} = $value + 0 unless $datname eq 'postgres';
			next if $datname ne 'postgres';
			$values{ $name . '{' . join(',', map { "$_=$labels{$_}" } sort keys %labels) . '}' } = $value + 0;
		}
	}
	is_deeply([ grep { !/^other / } keys %elsewhere ], [], 'each figure says of which database it is');
	is($elsewhere{'other audio_cleanup_sources'}, 1, 'and those of the other database are told apart');
	my %seen = map { (split /\{/)[0] => 1 } keys %values;
	delete @types{ grep { !$seen{$_} } keys %types };
	return (\%values, \%types);
}

# The same as SQL shows it.
sub metrics
{
	my (%values, %types);

	foreach my $row (split /\n/, $node->safe_psql('postgres', q{
		SELECT name, coalesce((SELECT string_agg(key || '=' || value, ',' ORDER BY key) FROM jsonb_each_text(labels)), ''), value, type
		FROM cleanup_metrics}))
	{
		my ($name, $labels, $value, $type) = split /\|/, $row;
		$values{"$name\{$labels}"} = $value + 0;
		$types{$name} = $type;
	}
	return (\%values, \%types);
}

# The free space of a disk that others use is not the same in two instants.
sub rounded
{
	my ($values) = @_;
	return { map { $_ => /free_bytes/ ? $values->{$_} > 0 : sprintf '%.3f', $values->{$_} } keys %$values };
}

sub compare
{
	my ($name) = @_;
	my ($scraped, $scraped_types) = scrape(get($exporter));
	my ($values, $types) = metrics();

	is_deeply(rounded($scraped), rounded($values), "$name: the exporter shows all of cleanup_metrics, and nothing else");
	is_deeply($scraped_types, $types, "$name: and the types are right");
	return $scraped;
}

ok(wait_until(sub { get($exporter) =~ /^audio_cleanup_upload_dir_up/m }), 'the exporter is up');
my $scraped = compare('after a run');
is($scraped->{'audio_cleanup_files_deleted_total{reason=orphan}'}, 3, 'orphans deleted');
is($scraped->{'audio_cleanup_bytes_freed_total{reason=orphan}'}, 3000, 'and their bytes');
is($scraped->{'audio_cleanup_files_deleted_total{reason=failed_session}'}, 1, 'a failed session');
is($scraped->{'audio_cleanup_runs_total{status=done}'}, 1, 'the run');
ok($scraped->{'audio_cleanup_last_success_timestamp_seconds{}'} > time - 600, 'which was a success');
ok($scraped->{'audio_cleanup_next_run_timestamp_seconds{}'} > time, 'the next one is to come');

# what monitoring/README.md shows of it, whatever the values
foreach my $line (slurp_file("$monitoring/README.md") =~ /^(audio_cleanup_\w+\{.*\} \d+)$/mg)
{
	my $pattern = quotemeta($line) =~ s/(datname|server)\\=\\".*?\\"/$1="[^"]+"/gr =~ s/\d+$/\\d+/r;
	like(get($exporter), qr/^$pattern$/m, "as monitoring/README.md shows it: $line");
}

# ---- Prometheus ----

# the real rules, but that nothing has to last
my $rules = slurp_file("$monitoring/alerts.yml");
(my $quick = $rules) =~ s/^(\s+for:) \d+[hms]$/$1 1s/mg;
isnt($quick, $rules, 'the rules have durations');
append_to_file("$folder/alerts.yml", $quick);
my $config = slurp_file("$monitoring/prometheus.yml");
$config =~ s/_interval: 1m$/_interval: 1s/mg;
$config =~ s/127\.0\.0\.1:9187/127.0.0.1:$exporter_port/ or die 'another target in prometheus.yml';
append_to_file("$folder/prometheus.yml", $config);

my $prometheus_port = PostgreSQL::Test::Cluster::get_free_port();
my $prometheus = "http://127.0.0.1:$prometheus_port";

start_program('prometheus', {}, 'prometheus', "--config.file=$folder/prometheus.yml",
	"--storage.tsdb.path=$folder/data", "--web.listen-address=127.0.0.1:$prometheus_port");
ok(wait_until(sub { get("$prometheus/-/ready") =~ /Ready/i }), 'Prometheus is up');

sub query
{
	my ($expression) = @_;
	my $answer = get("$prometheus/api/v1/query?" . $http->www_form_urlencode({ query => $expression }));
	return $answer ? decode_json($answer)->{data}{result} : [];
}

sub value_of
{
	my ($expression) = @_;
	my $result = query($expression);
	return @$result ? $result->[0]{value}[1] : undef;
}

sub firing
{
	return join ' ', sort map { $_->{metric}{alertname} } @{ query('ALERTS{alertstate="firing"}') };
}

ok(wait_until(sub { (value_of('audio_cleanup_files_deleted_total{reason="orphan",datname="postgres"}') // '') eq '3' }),
	'Prometheus has scraped the figures');
ok(wait_until(sub {
	my $rules = get("$prometheus/api/v1/rules");
	$rules && !grep { $_->{lastEvaluation} =~ /^0001/ || $_->{health} ne 'ok' }
	  map { @{ $_->{rules} } } @{ decode_json($rules)->{data}{groups} } }), 'all rules are evaluated without an error');
ok(wait_until(sub { firing() eq '' }), 'all is well, no alert fires');

# refused, and the directory gone
put_file($dir, 'orphan4.mp3');
$node->safe_psql('postgres', 'TRUNCATE sessions');
isnt($node->psql('postgres', 'CALL cleanup_run()'), 0, 'a run is refused');
ok(wait_until(sub { firing() eq 'AudioCleanupBlocked' }), 'AudioCleanupBlocked fires, and only that');
my ($alert) = grep { $_->{state} eq 'firing' } @{ decode_json(get("$prometheus/api/v1/alerts"))->{data}{alerts} };
like($alert->{annotations}{summary}, qr/cleanup of postgres was refused/, 'it says in which database');
rename $dir, "$dir.away" or die;
ok(wait_until(sub { firing() eq 'AudioCleanupBlocked AudioCleanupUploadDirDown' }), 'AudioCleanupUploadDirDown fires');
compare('without the directory');
rename "$dir.away", $dir or die;
$node->safe_psql('postgres', 'CALL cleanup_run(force => true)');
ok(wait_until(sub { firing() eq '' }), 'and all is well again');
ok(wait_until(sub { value_of('audio_cleanup_files_deleted_total{reason="orphan",datname="postgres"}') eq '5' }), 'with two files more');
$node->stop;
ok(wait_until(sub { firing() eq 'AudioCleanupNoMetrics' }), 'AudioCleanupNoMetrics fires when the server is down');
unlike(slurp_file("$folder/prometheus.log"), qr/level=error/, 'Prometheus has nothing to complain of');

# ---- promtool ----

foreach my $check ([ 'check', 'rules', 'alerts.yml' ], [ 'check', 'config', 'prometheus.yml' ], [ 'test', 'rules', 'alerts_test.yml' ])
{
	my ($stdout, $stderr) = run_command([ 'promtool', @$check[0, 1], "$monitoring/$check->[2]" ]);
	is($?, 0, "promtool @$check") or diag("$stdout\n$stderr");
}
my @alerts = $rules =~ /- alert: (\w+)/g;
my $tests = slurp_file("$monitoring/alerts_test.yml");
is_deeply([ grep { $tests !~ /alertname: $_\s+exp_alerts:\s+- exp_labels/ } @alerts ], [], 'every alert is tested to fire');

# ---- what the rules and the dashboard speak of ----

my %known = map { (split /\{/)[0] => 1 } keys %$scraped;
$known{audio_cleanup_oldest_pending_timestamp_seconds} = 1;
my $dashboard = decode_json(slurp_file("$monitoring/grafana-dashboard.json"));
my @expressions = map { $_->{expr} } map { @{ $_->{targets} } } @{ $dashboard->{panels} };
ok(@expressions >= 10, 'the dashboard has panels');
is_deeply([ grep { !$known{$_} } map { /(audio_cleanup_\w+)/g } @expressions, $rules =~ /^\s+expr: (.*)$/mg ], [],
	'the rules and the dashboard speak of nothing else than what is exported');
(my $dashboard_rules = join "\n", "groups:\n- name: dashboard\n  rules:", map {
		my $expression = $expressions[$_] =~ s/'/''/gr;
		"  - record: panel$_\n    expr: '$expression'" } 0 .. $#expressions) =~ s/\$datname/.*/g;
append_to_file("$folder/dashboard.yml", "$dashboard_rules\n");
my ($stdout, $stderr) = run_command([ 'promtool', 'check', 'rules', "$folder/dashboard.yml" ]);
is($?, 0, 'every expression of the dashboard is valid') or diag("$stdout\n$stderr");

done_testing();
