package _zygote;

# A warm parent of Perl scripts: each request gets a fork of it, which goes on as perl itself would have begun.
#
# How: perl is started as "perl [-w] -I<here> -M_zygote /./././dev/null <settings>". "use _zygote" is then what its main
# program begins with, and this module's import() stays in it and waits for requests. A forked child puts the script's
# file where perl has its main program open (descriptor 3, nothing of which was read yet) and returns from import(). So
# the script is compiled and run by perl as its main program, by its own rules: BEGIN to END, #! line, __DATA__, caller,
# exit, die and the texts of its errors. Nothing is imitated.
#
# Two things perl has learned at its start and must be told again: the name of the file (by a "# line" in front of its
# first line, through a source filter that ends itself), and the copy of that name which is in "Execution of ... aborted
# due to compilation errors": no variable leads there. That is why its name at the start is so long and so strange: it is
# found in memory by it, and a trial shows which copy is the one. Where the trial fails, this parent does not serve.
#
# Standard input is a socket to the server, with frames as in _warden.py: kind, length, data; "S" brings a script's
# standard input, output and error and its pipe for records. The data are strings, each with a length before it:
#
#   S: number, cwd, umask, niceness, five limits (empty: none), first line, index of the script in argv, length of argv,
#      argv, environment
#   T: number
#
# Descriptors come by recvmsg and much else by other system calls that core Perl has no function for; hence the numbers.
# No descriptor of ours is a Perl file handle: they would be in the script's memory, and closed with its own.

use strict;
use warnings;

use Filter::Util::Call ();

my %NUMBERS = (
    x86_64 => {
        read => 0, write => 1, close => 3, lseek => 8, rt_sigaction => 13, rt_sigprocmask => 14, recvmsg => 47, wait4 => 61,
        fcntl => 72, setsid => 112, setgroups => 116, setresuid => 117, getresuid => 118, setresgid => 119,
        getresgid => 120, prctl => 157, clock_gettime => 228, exit_group => 231, openat => 257, signalfd4 => 289,
        dup3 => 292, pipe2 => 293, prlimit64 => 302, close_range => 436,
    },
    aarch64 => {
        read => 63, write => 64, close => 57, lseek => 62, rt_sigaction => 134, rt_sigprocmask => 135, recvmsg => 212, wait4 => 260,
        fcntl => 25, setsid => 157, setgroups => 159, setresuid => 147, getresuid => 148, setresgid => 149,
        getresgid => 150, prctl => 167, clock_gettime => 113, exit_group => 94, openat => 56, signalfd4 => 74,
        dup3 => 24, pipe2 => 59, prlimit64 => 261, close_range => 436,
    },
);
my %SYS;

use constant {
    READY => 0, STARTED => 1, REFUSED => 2, ENDED => 3,
    AT_PROGRAM => 0, AT_DIRECTORY => 1, AT_LIMITS => 2, AT_RENEWAL => 3,
    KILL_GRACE => 3, KILL_TICK => 0.05, KILL_SECONDS => 10, COUNT_SECONDS => 1, LOAD_SECONDS => 20,
    ENOENT => 2, EPERM => 1, ENOTSUP => 95, ESTALE => 116,
    SIGKILL => 9, SIGTERM => 15, SIGCHLD => 17,
    O_CLOEXEC => 0x80000, O_NONBLOCK => 0x800,
    F_DUPFD_CLOEXEC => 1030, F_SETFL => 4, AT_FDCWD => -100, MSG_CMSG_CLOEXEC => 0x40000000,
    PR_SET_DUMPABLE => 4, PR_SET_NAME => 15, PR_SET_CHILD_SUBREAPER => 36, PR_SET_NO_NEW_PRIVS => 38,
    MAIN => 3,         # where perl has its main program open
    LEARN => 200,      # the lowest number for the pipe on which a script that is compiled tells of its modules
    SEEN => 1000,      # of how many scripts it is known what they use
};

# Those that a server may ignore; a script begins with all at their defaults: HUP, INT, QUIT, PIPE, TERM, CHLD, XFSZ.
my @DEFAULT_SIGNALS = (1, 2, 3, 13, 15, 17, 25);
# Those that do not end this process: HUP, INT, QUIT, TERM. They are blocked, not ignored: no child has to undo that.
my @BLOCKED_SIGNALS = (1, 2, 3, 15, SIGCHLD);

my $own_name;          # the path that perl has for its main program
my $name_at;           # where in memory
my $environ_at;        # where the kernel looks for this process's environment
my $environ_size;
my ($socket, $signals, $learned, $learner);    # descriptors
my %scripts;           # by number
my %by_pid;            # those whose first process was not reaped yet
my %files;             # of all that was loaded here: what stat said
my @inc;               # @INC as a script has it
my %refused;           # modules that cannot be loaded here
my $learns = 0;        # 1: all that scripts use of @INC; 0: CGI alone
my %seen;              # scripts of which it is known what they use
my ($counted_at, $counted) = (0, 0);
my $job;               # in a child: what it has to do

# -- system calls

sub call {
    my $name = shift;
    return syscall($SYS{$name}, @_);
}

sub strict_call {
    my $name = $_[0];
    my $result = &call;
    die [$! + 0, $name] if $result < 0;
    return $result;
}

sub zeros {
    my ($size) = @_;
    my $buffer = "\0" x $size;
    vec($buffer, 0, 8) = 0;    # so that nobody shares it
    return $buffer;
}

sub prctl {
    my ($option, $value) = @_;
    return strict_call('prctl', $option, $value, 0, 0, 0);
}

sub read_some {
    my ($descriptor, $size) = @_;
    my $buffer = zeros($size);
    my $count = call('read', $descriptor, $buffer, $size);
    return $count > 0 ? substr($buffer, 0, $count) : '';
}

sub open_file {
    my ($path, $flags) = @_;
    return call('openat', AT_FDCWD, $path, $flags, 0);
}

sub new_pipe {
    my $pair = zeros(8);
    strict_call('pipe2', $pair, O_CLOEXEC);
    return unpack 'l2', $pair;
}

sub now {
    my $time = zeros(16);
    call('clock_gettime', 1, $time);
    my ($seconds, $nanoseconds) = unpack 'q2', $time;
    return $seconds + $nanoseconds / 1e9;
}

sub sigset {
    my $bits = 0;
    $bits |= 1 << ($_ - 1) for @_;
    return pack 'Q', $bits;
}

# The whole of a file of /proc.
sub content {
    my ($path) = @_;
    sysopen my $file, $path, 0 or return;
    my $text = '';
    while (sysread $file, $text, 65536, length $text) { }
    return $text;
}

# -- the start

sub import {
    undef $_;
    begin() && serve() if not defined $job;
    become_script($job) if $job;
}

# Get ready; whether it is not a trial that shall go on.
sub begin {
    $own_name = $0;
    my $machine = machine();
    my $settings = eval { thaw($ARGV[0]) } or refuse_to_serve(ENOTSUP);
    %SYS = %{ $NUMBERS{$machine} || refuse_to_serve(ENOTSUP) };
    refuse_to_serve(ENOTSUP)
        if length pack('p', '') != 8 or (readlink('/proc/self/fd/' . MAIN) // '') ne '/dev/null';
    my $is_ready = eval {
        @inc = @INC;
        shift @inc if @inc and $inc[0] eq $settings->{here};
        own_descriptors();
        look_at_memory();
        default_signals();
        return 0 if not find_name();
        become($settings) if length $settings->{uid};
        prctl(PR_SET_DUMPABLE, 0);
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        prctl(PR_SET_NO_NEW_PRIVS, 1) if $settings->{no_new_privs};
        1;
    };
    if (not defined $is_ready) {
        my $number = ref $@ ? $@->[0] : ENOTSUP;
        print STDERR "wsgicgi: the warm Perl parent: $@" if not ref $@;
        refuse_to_serve($number);
    }
    return 0 if not $is_ready;
    chdir '/';
    $learns = $settings->{learn};
    load('strict.pm', 'warnings.pm', map { module_file($_) } @{ $settings->{preload} });
    record($socket, READY, 0);
    return 1;
}

sub machine {
    require Config;
    no strict 'refs';    # a variable that is named once would be warned of, to a script with -w
    return $^O eq 'linux' && ${'Config::Config'}{archname} =~ /^([^-]+)/ ? $1 : '';
}

sub thaw {
    my @strings = unpack '(L/a)*', pack 'H*', $_[0];
    my %settings;
    @settings{qw(here uid gid groups no_new_privs learn)} = splice @strings, 0, 6;
    $settings{preload} = \@strings;
    return \%settings;
}

sub record {
    my ($descriptor, $kind, $value, $at, $max_rss) = @_;
    my $bytes = pack 'l3q', $kind, $value, $at || 0, $max_rss || 0;
    return call('write', $descriptor, $bytes, length $bytes);
}

# Say why this process cannot serve, where system calls may not be known.
sub refuse_to_serve {
    my ($number) = @_;
    open my $answer, '>&=', $socket // 0;
    syswrite $answer, pack 'l3q', REFUSED, $number, 0, 0;
    exit 0;
}

# Bring ours out of the way of those that a script may see, and leave standard input to scripts.
sub own_descriptors {
    $socket = strict_call('fcntl', 0, F_DUPFD_CLOEXEC, 10);
    my $null = open_file('/dev/null', O_CLOEXEC);
    strict_call('dup3', $null, 0, 0);
    call('close', $null);
    my ($read_end, $write_end) = new_pipe();
    $learned = strict_call('fcntl', $read_end, F_DUPFD_CLOEXEC, 10);
    $learner = strict_call('fcntl', $write_end, F_DUPFD_CLOEXEC, 10);
    call('close', $_) for $read_end, $write_end;
    call('fcntl', $_, F_SETFL, O_NONBLOCK) for $learned, $learner;
    my $set = sigset(SIGCHLD);
    my $descriptor = strict_call('signalfd4', -1, $set, 8, O_CLOEXEC | O_NONBLOCK);
    $signals = strict_call('fcntl', $descriptor, F_DUPFD_CLOEXEC, 10);
    call('close', $descriptor);
}

sub default_signals {
    for my $number (@DEFAULT_SIGNALS) {
        my $action = zeros(32);
        call('rt_sigaction', $number, $action, 0, 8);
    }
    my $blocked = sigset(@BLOCKED_SIGNALS);
    strict_call('rt_sigprocmask', 2, $blocked, 0, 8);
}

# Take an identity for good, and make sure of it.
sub become {
    my ($settings) = @_;
    my ($uid, $gid) = ($settings->{uid} + 0, $settings->{gid} + 0);
    my @groups = split ' ', $settings->{groups};
    my $list = pack 'L*', @groups, 0;
    strict_call('setgroups', scalar @groups, $list);
    strict_call('setresgid', $gid, $gid, $gid);
    strict_call('setresuid', $uid, $uid, $uid);
    for my $pair ([ getresuid => $uid ], [ getresgid => $gid ]) {
        my @have = map { zeros(4) } 1 .. 3;
        strict_call($pair->[0], @have);
        die [EPERM] if grep { unpack('L', $_) != $pair->[1] } @have;
    }
    my %wanted = map { $_ => 1 } $gid, @groups;
    my %had = map { $_ => 1 } split ' ', $);
    die [EPERM] if join(' ', sort keys %wanted) ne join(' ', sort keys %had);
    die [EPERM] if $uid and call('setresuid', 0, 0, 0) == 0;
}

# -- the name of the main program

sub look_at_memory {
    my @fields = split ' ', (content('/proc/self/stat') =~ /.*\)(.*)/s)[0];
    $environ_at = $fields[47] + 0;
    $environ_size = $fields[48] - $fields[47];
}

# All places where the name stands by itself.
sub places_of_name {
    my @places;
    my $name = "$own_name\0";
    for my $line (split /\n/, content('/proc/self/maps')) {
        no warnings 'portable';
        my ($from, $to) = $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw.. \S+ \S+ 0 *(?:\[heap\])?$/ or next;
        ($from, $to) = (hex $from, hex $to);
        my $memory = unpack 'P' . ($to - $from), pack 'J', $from;
        my $at = -1;
        while (($at = index $memory, $name, $at + 1) >= 0) {
            push @places, $from + $at if $at < 2 or substr($memory, $at - 2, 2) ne '_<';
        }
    }
    return @places;
}

sub poke {
    my ($address, $bytes) = @_;
    my ($read_end, $write_end) = new_pipe();
    strict_call('write', $write_end, $bytes, length $bytes);
    strict_call('read', $read_end, $address, length $bytes);
    call('close', $_) for $read_end, $write_end;
}

# Find the copy that perl shows, by a program with an error; false in the child that goes on to be that program.
sub find_name {
    my @places = places_of_name();
    my ($errors, $its_errors) = new_pipe();
    my ($source, $its_source) = new_pipe();
    my $pid = fork // die [ $! + 0 ];
    if (not $pid) {
        my $program = "}\n";
        strict_call('write', $its_source, $program, length $program);
        strict_call('dup3', $source, MAIN, O_CLOEXEC);
        strict_call('dup3', $its_errors, 2, 0);
        call('close', $_) for $source, $its_source, $errors, $its_errors;
        poke($places[$_], "place $_;\0") for 0 .. $#places;
        $job = 0;
        return 0;
    }
    call('close', $_) for $its_errors, $source, $its_source;
    my $text = '';
    while (length(my $more = read_some($errors, 4096))) { $text .= $more }
    call('close', $errors);
    waitpid $pid, 0;
    my ($which) = $text =~ /^Execution of place (\d+); aborted/m or die "this perl's messages are unlike others: $text";
    $name_at = $places[$which];
    return 1;
}

# -- what is loaded beforehand

sub module_file {
    my ($name) = @_;
    return $name if $name =~ /\.p[lm]$/;
    $name =~ s{::|'}{/}g;
    return "$name.pm";
}

# What loading a module must not change, for scripts that do not use it would see it.
sub fingerprint {
    my %state;
    opendir my $directory, '/proc/self/fd' or return {};
    $state{'opens a descriptor'} = join ' ', sort grep { !/\./ } readdir $directory;
    closedir $directory;
    ($state{'starts a thread'}) = content('/proc/self/status') =~ /^Threads:\s*(\d+)/m;
    no warnings 'uninitialized';
    $state{'changes %SIG'} = join ' ', map { "$_=$SIG{$_}" } sort grep { defined $SIG{$_} } keys %SIG;
    $state{'changes %ENV'} = join "\0", map { "$_=$ENV{$_}" } sort keys %ENV;
    $state{'changes @INC'} = join "\0", @INC;
    no strict 'refs';
    $state{'replaces functions of Perl'} = join ' ', sort keys %{'CORE::GLOBAL::'};
    $state{'adds methods to every class'} = join ' ', sort grep { defined &{"UNIVERSAL::$_"} } keys %{'UNIVERSAL::'};
    $state{'adds functions to main'} = join ' ', sort grep { defined &{"main::$_"} } grep { !/::$/ } keys %{'main::'};
    my @handles = map { join ',', PerlIO::get_layers(*{"main::$_"}), tied *{"main::$_"} } qw(STDIN STDOUT STDERR);
    $state{'changes the standard streams'} = join ' ', @handles, select(), $|;
    $state{'changes special variables'} = join "\0", $/, $\, $,, $;, $", $^W, $0, umask, $^F, $:, $^L, $^A;
    return \%state;
}

# Tell those that can be loaded without harm, by doing it in a process of its own; the others with the reason.
sub tried {
    my @names = @_;
    my ($answers, $its_answers) = new_pipe();
    my $pid = fork;
    return if not defined $pid;
    if (not $pid) {
        $SIG{ALRM} = 'DEFAULT';
        prctl(PR_SET_DUMPABLE, 1);
        alarm LOAD_SECONDS;
        try_to_load($_, $its_answers) for @names;
        call('exit_group', 0);
    }
    call('close', $its_answers);
    my $text = '';
    while (length(my $more = read_some($answers, 4096))) { $text .= $more }
    call('close', $answers);
    waitpid $pid, 0;
    my %told = map { split /\t/, $_, 2 } split /\n/, $text;
    $told{$_} //= 'ends the process' for @names;
    return \%told;
}

sub try_to_load {
    my ($name, $answers) = @_;
    my $before = fingerprint();
    my $problem = '';
    {
        my $null = open_file('/dev/null', 1);
        call('dup3', $null, 2, 0);
        call('close', $null);
        require_file($name) or ($problem = "does not load: $@") =~ s/\s+/ /g;
    }
    my $after = fingerprint();
    ($problem) = grep { $before->{$_} ne ($after->{$_} // '') } sort keys %$before if not $problem;
    my $line = "$name\t" . ($problem // '') . "\n";
    call('write', $answers, $line, length $line);
}

# As the script itself would: nothing of ours is in reach of the module's code.
sub require_file {
    my ($name) = @_;
    local @INC = @inc;
    local ($@, $!, $_) if 0;
    return eval { package main; require $_[0]; 1 };
}

sub load {
    my @names = grep { not $INC{$_} and not $refused{$_} } @_;
    my $told = @names ? tried(@names) : {};
    for my $name (grep { defined $told->{$_} } @names) {
        my $problem = $told->{$name};
        $problem = "does not load: $@" if $problem eq '' and not require_file($name);
        if ($problem ne '') {
            $refused{$name} = 1;
            print STDERR "wsgicgi: the Perl module $name is not loaded beforehand: it $problem\n";
        }
    }
    undef $@;
    $files{$_} //= signature($_) for $^X, grep { defined and m{^/} } values %INC;
}

sub signature {
    my @status = stat $_[0] or return '';
    return join ':', @status[ 0, 1, 7, 9, 10 ];
}

sub has_changed {
    for my $file (keys %files) {
        return 1 if signature($file) ne $files{$file};
    }
    return 0;
}

# Load what scripts told that they use.
sub learn {
    my $text = read_some($learned, 65536);
    my @names = grep { m{^[A-Za-z_][\w/]*\.pm$} and ($learns or m{^CGI[./]}) } split /\n/, $text;
    load(grep { is_of_system($_) } @names);
}

sub is_of_system {
    my ($name) = @_;
    return grep { not ref and m{^/} and -f "$_/$name" } @inc;
}

# -- scripts

sub serve {
    while (not $job and (defined $socket or %scripts)) {
        my $wanted = '';
        vec($wanted, $_, 1) = 1 for grep { defined } $socket, $signals, $learned;
        my @ending = grep { defined $_->{next_look} } values %scripts;
        my $count = select $wanted, undef, undef, @ending ? KILL_TICK : undef;
        if ($count > 0) {
            reap() if vec $wanted, $signals, 1;
            learn() if vec $wanted, $learned, 1;
            take() if defined $socket and vec $wanted, $socket, 1;
            return if $job;
        }
        for my $script (@ending) {
            delete $scripts{ $script->{number} } if go_on_ending($script);
        }
    }
    call('exit_group', 0);
}

# Take a frame.
sub take {
    my ($kind, $length, @descriptors) = receive_head();
    my $data = '';
    while (defined $kind and length $data < $length) {
        my $more = read_some($socket, $length - length $data);
        undef $kind if $more eq '';
        $data .= $more;
    }
    if (not defined $kind) {
        call('close', $socket);
        undef $socket;
        begin_end($_) for values %scripts;
        return;
    }
    my @strings = unpack '(L/a)*', $data;
    if ($kind eq 'S') {
        start(\@strings, \@descriptors);
    }
    elsif ($scripts{ $strings[0] }) {
        begin_end($scripts{ $strings[0] });
    }
}

sub receive_head {
    my ($head, $control) = (zeros(5), zeros(64));
    vec($_, 0, 8) = 0 for $head, $control;    # the kernel writes to them by their addresses
    my $vector = pack 'PQ', $head, 5;
    my $message = pack 'Q Lx4 P Q P Q l x4', 0, 0, $vector, 1, $control, length $control, 0;
    my $count = call('recvmsg', $socket, $message, MSG_CMSG_CLOEXEC);
    return if $count <= 0;
    my ($size, $level, $type) = unpack 'Q l l', $control;
    my @descriptors;
    my $has_them = (unpack 'Q Lx4 Q Q Q Q', $message)[5] >= 16 && $level == 1 && $type == 1;
    @descriptors = unpack 'x16 l' . int(($size - 16) / 4), $control if $has_them;
    $head = substr $head, 0, $count;
    while (length $head < 5) {
        my $more = read_some($socket, 5 - length $head);
        return if $more eq '';
        $head .= $more;
    }
    return unpack('a L', $head), @descriptors;
}

sub start {
    my ($strings, $descriptors) = @_;
    my %frame;
    @frame{qw(number cwd umask nice)} = splice @$strings, 0, 4;
    $frame{limits} = [ splice @$strings, 0, 5 ];
    @frame{qw(first_line index count)} = splice @$strings, 0, 3;
    $frame{argv} = [ splice @$strings, 0, $frame{count} ];
    $frame{environment} = $strings;
    $frame{descriptors} = $descriptors;
    my $records = $descriptors->[3];
    if (has_changed()) {
        record($records, REFUSED, ESTALE, AT_RENEWAL);
    }
    else {
        fork_script(\%frame, $records);
        return if $job;
    }
    call('close', $_) for @{$descriptors}[ 0 .. 2 ];
    call('close', $records) if not $scripts{ $frame{number} };
}

sub fork_script {
    my ($frame, $records) = @_;
    my $path = $frame->{argv}[ $frame->{index} ];
    $frame->{learns} = is_new($path);
    $frame->{others} = length $frame->{limits}[2] ? count_others() : 0;
    my $pid = fork;
    return record($records, REFUSED, $! + 0) if not defined $pid;
    if (not $pid) {
        $job = $frame;
        return;
    }
    my ($mark) = grep { /^UNIQUE_ID=./ } @{ $frame->{environment} };
    call('fcntl', $records, F_SETFL, O_NONBLOCK);
    $scripts{ $frame->{number} } = $by_pid{$pid} = {
        number => $frame->{number}, pid => $pid, records => $records, mark => $mark, is_reaped => 0,
    };
}

# Whether a script was not yet asked what it uses.
sub is_new {
    my ($path) = @_;
    my $signature = signature($path);
    return 0 if ($seen{$path} // '') eq $signature;
    %seen = () if keys %seen >= SEEN;
    $seen{$path} = $signature;
    return 1;
}

sub reap {
    read_some($signals, 128 * 16);
    while (1) {
        my ($status, $usage) = (zeros(4), zeros(144));
        my $pid = call('wait4', -1, $status, 1, $usage);
        return if $pid <= 0;
        my $script = delete $by_pid{$pid} or next;
        $status = unpack 'l', $status;
        my $signal = $status & 127;
        $script->{is_reaped} = 1;
        record($script->{records}, ENDED, $signal ? -$signal : $status >> 8, 0, 1024 * unpack 'x32 q', $usage);
        call('close', $script->{records});
        delete $scripts{ $script->{number} } if not defined $script->{next_look};
    }
}

# -- the end of scripts, as in _warden.py

sub begin_end {
    my ($script) = @_;
    return if defined $script->{next_look};
    $script->{kill_at} = now() + KILL_GRACE;
    $script->{next_look} = 0;
    signal_all($script, SIGTERM);
}

sub go_on_ending {
    my ($script) = @_;
    my $now = now();
    return 0 if $now < $script->{next_look};
    $script->{next_look} = $now + KILL_TICK;
    my $number = $now >= $script->{kill_at} ? SIGKILL : 0;
    return 1 if not signal_all($script, $number) and $script->{is_reaped};
    return $now >= $script->{kill_at} + KILL_SECONDS;
}

sub signal_all {
    my ($script, $number) = @_;
    my @found = members($script);
    kill $number, @found if @found and $number;
    return scalar @found;
}

# The living processes of a script: its session, orphans with its mark, what comes from these.
sub members {
    my ($script) = @_;
    my %processes = table();
    my (%children, %found);
    while (my ($pid, $process) = each %processes) {
        my ($parent, $session) = @$process;
        push @{ $children{$parent} }, $pid;
        my $is_orphan = $parent == $$ && !$by_pid{$pid};
        $found{$pid} = 1 if $session == $script->{pid} or ($is_orphan and has_mark($pid, $script->{mark}));
    }
    $found{ $script->{pid} } = 1 if not $script->{is_reaped} and $processes{ $script->{pid} };
    my @todo = keys %found;
    while (defined(my $pid = shift @todo)) {
        push @todo, grep { !$found{$_}++ } @{ $children{$pid} || [] };
    }
    return keys %found;
}

sub has_mark {
    my ($pid, $mark) = @_;
    return 0 if not defined $mark;
    return scalar grep { $_ eq $mark } split /\0/, content("/proc/$pid/environ") // '';
}

# All living processes: parent, session, number of threads.
sub table {
    my %processes;
    opendir my $directory, '/proc' or return;
    for my $pid (grep { /^\d+$/ } readdir $directory) {
        my ($fields) = (content("/proc/$pid/stat") // next) =~ /.*\)(.*)/s or next;
        my @fields = split ' ', $fields;
        $processes{$pid} = [ @fields[ 1, 3, 17 ] ] if $fields[0] !~ /[ZX]/;
    }
    return %processes;
}

# How many threads this user has that belong to no script of any warden or warm parent.
sub count_others {
    my $now = now();
    return $counted if $counted_at and $now - $counted_at < COUNT_SECONDS;
    my %processes = table();
    my %keepers = map { $_ => 1 }
        grep { (content("/proc/$_/cmdline") // '') =~ /(?:_(?:warden|zygote)\.py|\0-M_zygote)\0/ } keys %processes;
    my $count = 0;
    for my $pid (keys %processes) {
        my $above = $processes{$pid}[0];
        $above = $processes{$above}[0] while $processes{$above} and not $keepers{$above};
        next if $keepers{$above} or (content("/proc/$pid/status") // '') !~ /^Uid:\t$<\t/m;
        $count += $processes{$pid}[2];
    }
    ($counted_at, $counted) = ($now, $count);
    return $count;
}

# -- in a child

sub become_script {
    my ($frame) = @_;
    my $records = $frame->{descriptors}[3];
    call('setsid');
    my $none = sigset();
    call('rt_sigprocmask', 2, $none, 0, 8);
    call('dup3', $frame->{descriptors}[$_], $_, 0) for 0 .. 2;
    prctl(PR_SET_DUMPABLE, 1);
    umask $frame->{umask} if length $frame->{umask};
    be_nice($frame->{nice}) if $frame->{nice};
    refuse($records, $! + 0, AT_DIRECTORY) if not chdir $frame->{cwd};
    my $path = $frame->{argv}[ $frame->{index} ];
    my $script = open_file($path, O_CLOEXEC);
    my $errno = $! + 0;
    refuse($records, $errno, AT_PROGRAM) if $script < 0 and $errno == ENOENT and not $frame->{index};
    refuse($records, 13, AT_PROGRAM) if not $frame->{index} and not -x $path;
    my $is_faithful = $script >= 0 && is_as_told($script, $path, $frame);
    strict_call('dup3', $script, MAIN, O_CLOEXEC) if $is_faithful;
    eval { set_limits($frame); 1 } or refuse($records, $@->[0], AT_LIMITS);
    record($records, STARTED, $$);
    my $learner_here = $is_faithful && $frame->{learns} ? call('fcntl', $learner, F_DUPFD_CLOEXEC, LEARN) : -1;
    close_from(MAIN + 1, $learner_here);
    set_environment($frame->{environment});
    run_it_cold($frame->{argv}) if not $is_faithful;
    look_like_it($path, $frame);
    $job = { learner => $learner_here, directory => $path =~ m{^(.*/)} ? $1 : './' };
}

sub be_nice {
    my $nice = getpriority(0, 0) + $_[0];
    setpriority 0, 0, $nice > 19 ? 19 : $nice;
}

sub refuse {
    record(shift, REFUSED, shift, shift);
    call('exit_group', 127);
}

# Whether it is still the script that the server has seen, and none whose name a "# line" cannot carry.
sub is_as_told {
    my ($script, $path, $frame) = @_;
    return 0 if $path =~ /["\r\n]/ or length $path >= length $own_name;
    my $first_line = read_some($script, length $frame->{first_line});
    return $first_line eq $frame->{first_line} && call('lseek', $script, 0, 0) == 0;
}

sub set_limits {
    my ($frame) = @_;
    my @numbers = (0, 9, 6, 1, 7);    # CPU, AS, NPROC, FSIZE, NOFILE
    for my $index (0 .. 4) {
        my $soft = $frame->{limits}[$index];
        next if not length $soft;
        $soft += $frame->{others} if $index == 2;
        my $hard = $soft + ($index == 0);    # a script that catches SIGXCPU has a second more
        my $before = zeros(16);
        strict_call('prlimit64', 0, $numbers[$index], 0, $before);
        my $most = (unpack 'Q2', $before)[1];
        $hard = $most if $hard > $most;
        $soft = $hard if $soft > $hard;
        my $after = pack 'Q2', $soft, $hard;
        strict_call('prlimit64', 0, $numbers[$index], $after, 0);
    }
}

sub close_from {
    my ($first, $but) = @_;
    my @ranges = $but < 0 ? ([ $first, 0xffff_ffff ]) : ([ $first, $but - 1 ], [ $but + 1, 0xffff_ffff ]);
    for my $range (@ranges) {
        next if call('close_range', @$range, 0) == 0;
        opendir my $directory, '/proc/self/fd' or next;    # Linux before 5.9
        my @open = grep { /^\d/ and $_ >= $range->[0] and $_ <= $range->[1] } readdir $directory;
        closedir $directory;
        call('close', $_ + 0) for @open;
    }
}

sub set_environment {
    my ($pairs) = @_;
    %ENV = ();
    for my $pair (@$pairs) {
        my ($name, $value) = split /=/, $pair, 2;
        $ENV{$name} = $value;
    }
}

sub run_it_cold {
    my ($argv) = @_;
    no warnings 'exec';
    exec { $argv->[0] } @$argv;
    call('exit_group', 127);
}

sub look_like_it {
    my ($path, $frame) = @_;
    my @argv = @{ $frame->{argv} };
    poke($name_at, "$path\0");
    $0 = $path;
    my ($mark) = grep { /^UNIQUE_ID=./ } @{ $frame->{environment} };
    poke($environ_at, "$mark\0") if defined $mark and length $mark < $environ_size;
    my $comm = $argv[0] =~ m{([^/]*)$} ? "$1\0" : "perl\0";
    prctl(PR_SET_NAME, $comm);
    @ARGV = @argv[ $frame->{index} + 1 .. $#argv ];
    @INC = @inc;
    delete $INC{'_zygote.pm'};
    $^T = time;
    srand;
    my $line = qq{# line 1 "$path"\n};
    Filter::Util::Call::filter_add(
        sub {
            Filter::Util::Call::filter_del();
            $_ = $line;
            return 1;
        }
    );
    undef $frame;
    $! = 0;
    $@ = '';
    $? = 0;
}

# The first INIT block of the program: all that it uses is known, nothing of it has run.
sub tell_of_modules {
    my ($learner, $directory) = @{$job}{qw(learner directory)};
    undef $job;
    return if $learner < 0;
    my @names = grep {
        my $file = $INC{$_};
        defined $file and not ref $file and not $files{$file} and index($file, $directory) != 0;
    } keys %INC;
    my $text = join '', map { "$_\n" } @names;
    $text =~ s/[^\n]*\z// if length($text) > 4096 and $text = substr $text, 0, 4096;
    call('write', $learner, $text, length $text) if length $text;
    call('close', $learner);
}

INIT {
    local ($@, $!, $_);
    tell_of_modules() if $job;
}

1;
