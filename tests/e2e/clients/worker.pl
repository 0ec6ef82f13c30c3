# Sends the requests that come on standard input, one a line: METHOD, URL, media type, file of the body or -, file for the answer's body; with
# tabs between. Answers each with a line: the status. The library is `lwp` or `tiny`, as the argument says.
#
# CLIENT_USER and CLIENT_KEY: the credential, good for BASE. Challenges are the library's.
use strict;
use warnings;
use HTTP::Request;
use HTTP::Tiny;
use LWP::UserAgent;

$| = 1;
my ($user, $key, $base) = @ENV{qw(CLIENT_USER CLIENT_KEY BASE)};

# A body that comes piece by piece goes out in chunks.
sub pieces {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!";
    return sub { read($file, my $piece, 65536) or return ''; return $piece };
}

sub whole {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!";
    local $/;
    return <$file>;
}

my $lwp = LWP::UserAgent->new(timeout => 30, keep_alive => 1, requests_redirectable => []);
my ($netloc) = $base =~ m{^http://([^/]+)};
$lwp->credentials($netloc, $ENV{REALM}, $user, $key);
my $tiny = HTTP::Tiny->new(timeout => 30);

my %ask = (
    lwp => sub {
        my ($method, $url, $media, $sent) = @_;
        my $request = HTTP::Request->new($method, $url);
        if ($sent ne '-') {
            $request->content_type($media);
            # A challenge would come too late for a body that is gone.
            $request->authorization_basic($user, $key) if $method eq 'PUT';
            $request->content($method eq 'PUT' ? pieces($sent) : whole($sent));
        }
        my $answer = $lwp->request($request);
        # By itself it would take the credential along.
        $answer = $lwp->get($answer->header('Location')) if $answer->code == 302;
        return ($answer->code, $answer->decoded_content(charset => 'none'));
    },
    tiny => sub {
        my ($method, $url, $media, $sent) = @_;
        # The credential goes with this URL, and with none that it leads to.
        $url =~ s{^http://\Q$netloc\E}{http://$user:$key\@$netloc};
        my %options;
        %options = (headers => { 'content-type' => $media }, content => $method eq 'PUT' ? pieces($sent) : whole($sent)) if $sent ne '-';
        my $answer = $tiny->request($method, $url, \%options);
        return ($answer->{status}, $answer->{content});
    },
);

my $ask = $ask{ $ARGV[0] } or die "lwp or tiny";
while (my $line = <STDIN>) {
    chomp $line;
    my ($method, $url, $media, $sent, $kept) = split /\t/, $line;
    my ($status, $received) = $ask->($method, $url, $media, $sent);
    open my $file, '>:raw', $kept or die "$kept: $!";
    print $file $received;
    close $file;
    print "$status\n";
}
