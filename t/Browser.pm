# Browser.pm: headless Chromium, as a test sees it.
#
# Talks the DevTools protocol over two pipes, so no port is opened.  Notes what
# the page logs, and what it asks the network for.

package Browser;

use strict;
use warnings;

use Fcntl qw(F_DUPFD);
use IO::Handle;
use IO::Select;
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Time::HiRes qw(time);

my $wait_seconds = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;
my @program = qw(chromium --headless=new --remote-debugging-pipe --disable-gpu --disable-dev-shm-usage
  --no-first-run --no-default-browser-check --disable-background-networking --disable-component-update
  --disable-sync --disable-extensions --hide-scrollbars --password-store=basic);

# start(DIR, LOG): all its files are in DIR, which has a short name.  The sandbox needs rights that many containers lack.
sub start
{
	my ($class, $dir, $log) = @_;

	foreach my $options ([], ['--no-sandbox'])
	{
		my $self = bless { dir => $dir, log => $log, id => 0, events => [] }, $class;
		$self->spawn(@$options);
		return $self if eval { $self->attach; 1 };
		$self->stop;
	}
	die "Chromium does not start: see $log";
}

# It reads from descriptor 3 and writes to 4.
sub spawn
{
	my ($self, @options) = @_;

	pipe(my $its_input, $self->{to}) or die "pipe: $!";
	pipe($self->{from}, my $its_output) or die "pipe: $!";
	$self->{pid} = fork // die "fork: $!";
	if ($self->{pid} == 0)
	{
		my ($in, $out) = map { fcntl($_, F_DUPFD, 10) } $its_input, $its_output;
		local %ENV = (HOME => $self->{dir}, TMPDIR => $self->{dir}, PATH => '/usr/bin:/bin', LANG => 'C.UTF-8');

		open STDOUT, '>>', $self->{log} or POSIX::_exit(1);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(1);
		POSIX::dup2($in, 3);
		POSIX::dup2($out, 4);
		POSIX::close($_) foreach $in, $out;
		exec(@program, @options, "--user-data-dir=$self->{dir}/profile") or POSIX::_exit(1);
	}
	binmode $_ foreach $self->{to}, $self->{from};
	$self->{to}->autoflush(1);
	return;
}

sub attach
{
	my ($self) = @_;
	my $target = $self->call('Target.createTarget', { url => 'about:blank' })->{targetId};

	$self->{session} = $self->call('Target.attachToTarget', { targetId => $target, flatten => JSON::PP::true })->{sessionId};
	$self->call("$_.enable") foreach qw(Page Runtime Log Network);
	return;
}

sub stop
{
	my ($self) = @_;

	local $SIG{PIPE} = 'IGNORE';
	eval { $self->call('Browser.close'); };
	close $self->{$_} foreach 'to', 'from';
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	return;
}

# The next message; events are kept.
sub receive
{
	my ($self, $deadline) = @_;

	while (($self->{input} //= '') !~ /\0/)
	{
		IO::Select->new($self->{from})->can_read($deadline - time) or die 'Chromium does not answer';
		sysread $self->{from}, $self->{input}, 65536, length $self->{input} or die 'Chromium has ended';
	}
	$self->{input} =~ s/^([^\0]*)\0//s;
	my $message = decode_json($1);
	push @{ $self->{events} }, $message if $message->{method};
	return $message;
}

# call(METHOD, {PARAMETERS}): its result
sub call
{
	my ($self, $method, $parameters) = @_;
	my $deadline = time + $wait_seconds;
	my $id = ++$self->{id};

	local $SIG{PIPE} = 'IGNORE';
	print { $self->{to} } encode_json({ id => $id, method => $method, params => $parameters || {},
			$self->{session} ? (sessionId => $self->{session}) : () }), "\0" or die "Chromium has ended: $!";
	while (1)
	{
		my $message = $self->receive($deadline);
		next unless defined $message->{id} && $message->{id} == $id;
		die "$method: $message->{error}{message}" if $message->{error};
		return $message->{result};
	}
}

# show(FILE, width => 1180, height => 800, scheme => 'light'): until it is there, with all that it has asked for
sub show
{
	my ($self, $file, %options) = @_;
	my $deadline = time + $wait_seconds;

	$self->call('Emulation.setDeviceMetricsOverride', { width => $options{width} || 1180, height => $options{height} || 800,
			deviceScaleFactor => 1, mobile => ($options{width} || 1180) < 600 ? JSON::PP::true : JSON::PP::false });
	$self->call('Emulation.setEmulatedMedia',
		{ features => [ { name => 'prefers-color-scheme', value => $options{scheme} || 'light' } ] });
	$self->{events} = [];
	$self->call('Page.navigate', { url => "file://$file" });
	$self->receive($deadline) until grep { $_->{method} eq 'Page.loadEventFired' } @{ $self->{events} };
	# what the page's own tasks were about to do
	$self->js('new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))');
	return;
}

# What an expression is, there; a promise is waited for.
sub js
{
	my ($self, $expression) = @_;
	my $result = $self->call('Runtime.evaluate',
		{ expression => $expression, returnByValue => JSON::PP::true, awaitPromise => JSON::PP::true });

	die "$expression: $result->{exceptionDetails}{exception}{description}" if $result->{exceptionDetails};
	return $result->{result}{value};
}

# The whole page, as PNG.
sub screenshot
{
	my ($self, $file) = @_;
	my $image = decode_base64($self->call('Page.captureScreenshot', { captureBeyondViewport => JSON::PP::true })->{data});

	open my $handle, '>:raw', $file or die "could not write $file: $!";
	print $handle $image;
	close $handle or die "could not write $file: $!";
	return length $image;
}

# What it has asked for beyond itself, and what it was refused.
sub requests
{
	my ($self) = @_;
	return [ map { $_->{params}{request}{url} }
		  grep { $_->{method} eq 'Network.requestWillBeSent' && $_->{params}{type} ne 'Document' } @{ $self->{events} } ];
}

# What stands in its console.
sub complaints
{
	my ($self) = @_;
	return [ map { $_->{params}{entry}{text} // $_->{params}{exceptionDetails}{text} // $_->{params}{type} }
		  grep { $_->{method} =~ /^(Log\.entryAdded|Runtime\.exceptionThrown|Runtime\.consoleAPICalled|Page\.javascriptDialogOpening)$/ }
		  @{ $self->{events} } ];
}

1;
