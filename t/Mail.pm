# Mail.pm: mail servers on loopback for the TAP tests, and what they were sent.

package Mail;

use strict;
use warnings;

use Exporter qw(import);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use POSIX qw(WNOHANG);

use AudioCleanup qw(read_file wait_until change_settings);

our @EXPORT = qw(start_mail_server stop_mail_server mails wait_for_mails connections make_certificates header);

my $n_servers = 0;
my %running;

# start_mail_server(OPTION => VALUE, ...): those of smtp_server.py; {port, dir, pid}
sub start_mail_server
{
	my (%options) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $echo = delete $options{echo};
	my @arguments = ($dir, ($echo ? '--echo' : ()), map { ("--$_", $options{$_}) } sort keys %options);
	my $pid = fork // die "could not fork: $!";

	if ($pid == 0)
	{
		open STDERR, '>', "$PostgreSQL::Test::Utils::log_path/smtp_server_" . ++$n_servers . '.log';
		open STDOUT, '>&', \*STDERR;
		exec('/usr/bin/python3', dirname(__FILE__) . '/smtp_server.py', @arguments) or POSIX::_exit(127);
	}
	$n_servers++;
	$running{$pid} = 1;
	wait_until(sub { -e "$dir/port" || waitpid($pid, WNOHANG) > 0 });
	my $port = read_file("$dir/port") // die 'the mail server has not started: see its log';
	return { pid => $pid, dir => $dir, port => $port };
}

sub stop_mail_server
{
	my ($server) = @_;
	kill 'KILL', $server->{pid};
	waitpid $server->{pid}, 0;
	delete $running{ $server->{pid} };
	return;
}

# What has come in, in its order.
sub mails
{
	my ($server) = @_;
	my @mails;
	for (my $n = 1; -e "$server->{dir}/$n.json"; $n++)
	{
		push @mails, decode_json(read_file("$server->{dir}/$n.json"));
	}
	return @mails;
}

# Waits until there are so many, and returns them all.
sub wait_for_mails
{
	my ($server, $n) = @_;
	wait_until(sub { -e "$server->{dir}/$n.json" });
	return mails($server);
}

sub connections
{
	my ($server) = @_;
	return -s "$server->{dir}/connections" || 0;
}

# The header of a mail, decoded.
sub header
{
	my ($mail, $name) = @_;
	my ($found) = grep { lc $_->[0] eq lc $name } @{ $mail->{headers} };
	return $found ? $found->[1] : undef;
}

# make_certificates(DIR): ca.pem, and server.pem with server.key for localhost, signed by it
sub make_certificates
{
	my ($dir) = @_;
	my @quiet = ('-batch');

	append_to_file("$dir/extensions", "subjectAltName=DNS:localhost\n");
	foreach my $command (
		"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout $dir/ca.key -out $dir/ca.pem",
		"req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout $dir/server.key -out $dir/server.csr",
		"x509 -req -in $dir/server.csr -CA $dir/ca.pem -CAkey $dir/ca.key -CAcreateserial -days 2"
		. " -extfile $dir/extensions -out $dir/server.pem")
	{
		system_or_bail("openssl $command 2>>$dir/openssl.log");
	}
	return;
}

END
{
	kill 'KILL', keys %running if %running;
}

1;
