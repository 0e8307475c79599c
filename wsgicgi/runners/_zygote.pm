package _zygote;

# A warm parent of Perl scripts: each request gets a fork of it, which goes on as perl itself would have begun.
#
# How: perl is started as "perl [-w] -I<here> -M_zygote /./././dev/null <settings>". "use _zygote" is then what its main
# program begins with, and this module's import() stays in it and waits for requests. A forked child puts the script's
# file where perl has its main program open (descriptor 3, nothing of which was read yet) and returns from import(). So
# the script is compiled and run by perl as its main program, by its own rules: BEGIN to END, #! line, __DATA__, caller,
# exit, die and the texts of its errors. Nothing is imitated.
#
# Three things perl has from its start and must be told again: the name of the file (by a "# line" in front of its
# first line, through a source filter that ends itself); the copy of that name which is in "Execution of ... aborted
# due to compilation errors"; and how many evals there were, for "(eval 1)". No variable leads to the last two: they
# are found in memory and written over. That is why the name at the start is so long and so strange. Trials show
# which copies of it are the ones; where they fail, this parent does not serve.
#
# A warden has started it, so it has the scripts' identity and can never have another. Standard input is a socket to
# the server, with frames as in _warden.py: kind, length, data. "S" brings a script's standard input, output and error
# and its pipe for records, "T" ends one. The data are strings, each with a length before it:
#
#   S: number, cwd, umask, niceness, five limits (empty: none), first line, name of the process, whether the kernel
#      would start the file, how many words follow, the script and its words, environment
#   T: number
#
# It answers there as _zygote.py does: R, it is ready; X, what it has loaded has changed, there must be another; W, a
# text for the log.
#
# Descriptors come by recvmsg and much else by other system calls that core Perl has no function for; hence the numbers.
# No descriptor of ours is a Perl file handle: they would be in the script's memory, and closed with its own.

use strict;
use warnings;

use Filter::Util::Call ();

my %NUMBERS = (
    x86_64 => {
        read => 0, write => 1, close => 3, lseek => 8, mmap => 9, rt_sigaction => 13, rt_sigprocmask => 14,
        recvmsg => 47, wait4 => 61, fcntl => 72, setsid => 112, prctl => 157, clock_gettime => 228, exit_group => 231,
        openat => 257, faccessat => 269, signalfd4 => 289, dup3 => 292, pipe2 => 293, prlimit64 => 302,
        close_range => 436,
    },
    aarch64 => {
        read => 63, write => 64, close => 57, lseek => 62, mmap => 222, rt_sigaction => 134, rt_sigprocmask => 135,
        recvmsg => 212, wait4 => 260, fcntl => 25, setsid => 157, prctl => 167, clock_gettime => 113,
        exit_group => 94, openat => 56, faccessat => 48, signalfd4 => 74, dup3 => 24, pipe2 => 59, prlimit64 => 261,
        close_range => 436,
    },
);
my %SYS;

use constant {
    STARTED => 1, REFUSED => 2, ENDED => 3,
    AT_DIRECTORY => 1, AT_LIMITS => 2, AT_UNFIT => 3, AT_STALE => 4,
    KILL_GRACE => 3, KILL_TICK => 0.05, KILL_SECONDS => 10, COUNT_SECONDS => 1, LOAD_SECONDS => 5,
    CIRCULAR => 'needs a module that needs it',
    ENOTSUP => 95, ESTALE => 116,
    SIGKILL => 9, SIGTERM => 15, SIGCHLD => 17, SIGCONT => 18,
    O_CLOEXEC => 0x80000, O_NONBLOCK => 0x800,
    F_DUPFD_CLOEXEC => 1030, F_SETFL => 4, AT_FDCWD => -100, MSG_CMSG_CLOEXEC => 0x40000000,
    PR_SET_DUMPABLE => 4, PR_SET_NAME => 15, PR_SET_CHILD_SUBREAPER => 36,
    MAIN => 3,         # where perl has its main program open
    SLOT => 4096,      # bytes of memory in which a script tells of its modules
    SLOTS => 32,       # how many scripts can tell at once
    SEEN => 1000,      # of how many scripts it is known what they use
    GROWTH => 64 << 20,    # bytes beyond which this process shall be replaced by another; looked at now and then:
    LOOK_AFTER => 256,     # after so many scripts
};

# Those that a server may ignore; a script begins with all at their defaults: HUP, INT, QUIT, PIPE, TERM, CHLD, XFSZ.
my @DEFAULT_SIGNALS = (1, 2, 3, 13, 15, 17, 25);
# Those that do not end this process: HUP, INT, QUIT, PIPE, TERM. They are blocked, not ignored: that is easily undone.
my @BLOCKED_SIGNALS = (1, 2, 3, 13, 15, SIGCHLD);

# Programs whose errors perl finds at different points; 5.42 then shows the name from different copies, 5.36 from one.
my @FAULTY = ("}\n", "use strict;\n\$undeclared;\n");

my $own_name;          # the path that perl has for its main program
my @names_at;          # where in memory it has copies that it shows
my $evals_at;          # where in memory perl counts what it has compiled by eval; undefined: that was not found
my $environ_at;        # where the kernel looks for this process's environment
my $environ_size;
my ($socket, $signals);    # descriptors
my $memory_at;         # of what is shared with scripts: slots in which they tell what they use
my @free_slots;
my $has_loaded = 0;    # what the settings name
my @preload;
my %read_at_load;      # variables that modules have read when they were loaded: what they were
my %scripts;           # by number
my %by_pid;            # those whose first process was not reaped yet
my %files;             # of all that was loaded here: what stat said
my @inc;               # @INC as a script has it
my %refused = ('FindBin.pm' => 1);    # modules that cannot be loaded here; this one looks for the script
my $learns = 0;        # 2: nothing; 1: all that scripts use of @INC; 0: CGI alone
my %seen;              # scripts of which it is known what they use
my ($counted_at, $counted) = (0, 0);
my ($starts, $size) = (0, 0);    # scripts, and bytes of memory after the last module was loaded
my $job;               # in a child: what it has to do

# -- system calls

sub call {
    my $name = shift;
    return syscall($SYS{$name}, @_);
}

sub strict_call {
    my $name = $_[0];
    my $result = &call;
    die "wsgicgi: $name: $!\n" if $result < 0;
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
    return if not $job;
    my $records = $job->{descriptors}[3];
    eval { become_script($job); 1 } or refuse($records, ENOTSUP, AT_UNFIT);
}

# Get ready; whether it is not a trial that shall go on.
sub begin {
    $own_name = $0;
    my ($here, $learns_all, @names) = unpack '(L/a)*', pack 'H*', $ARGV[0];
    %SYS = %{ $NUMBERS{ machine() } || die "wsgicgi: system calls are not known here\n" };
    die "wsgicgi: this is no Linux with /proc\n" if (readlink('/proc/self/fd/' . MAIN) // '') ne '/dev/null';
    @inc = @INC;
    shift @inc if @inc and $inc[0] eq $here;
    @INC = @inc;
    own_descriptors();
    look_at_memory();
    default_signals();
    return 0 if not find_name();
    find_evals();
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    chdir '/';
    $learns = $learns_all;
    @preload = map { module_file($_) } @names;
    note_files();
    $size = size();
    hide_output();
    send_frame('R', 'N');    # None, as marshal has it
    return 1;
}

sub machine {
    require Config;
    no strict 'refs';    # a variable that is named once would be warned of, to a script with -w
    return $^O eq 'linux' && ${'Config::Config'}{archname} =~ /^([^-]+)/ ? $1 : '';
}

sub record {
    my ($descriptor, $kind, $value, $at, $max_rss, $cpu) = @_;
    my $bytes = pack 'l3q2', $kind, $value, $at || 0, $max_rss || 0, $cpu || 0;
    return call('write', $descriptor, $bytes, length $bytes);
}

sub send_frame {
    my ($kind, $data) = @_;
    my $bytes = pack 'a L/a', $kind, $data;
    return call('write', $socket, $bytes, length $bytes);
}

# Tell the server's log something, as a string of marshal.
sub tell_log {
    my ($text) = @_;
    send_frame('W', pack 'a L/a', 'u', $text =~ s/[^ -~]/?/gr);
}

# Nobody reads what this process says from now on.
sub hide_output {
    my $null = open_file('/dev/null', 1);
    call('dup3', $null, $_, 0) for 1, 2;
    call('close', $null);
}

# Bring ours out of the way of those that a script may see, and leave standard input to scripts.
sub own_descriptors {
    $socket = strict_call('fcntl', 0, F_DUPFD_CLOEXEC, 10);
    my $null = open_file('/dev/null', O_CLOEXEC);
    strict_call('dup3', $null, 0, 0);
    call('close', $null);
    my $set = sigset(SIGCHLD);
    my $descriptor = strict_call('signalfd4', -1, $set, 8, O_CLOEXEC | O_NONBLOCK);
    $signals = strict_call('fcntl', $descriptor, F_DUPFD_CLOEXEC, 10);
    call('close', $descriptor);
    $memory_at = strict_call('mmap', 0, SLOT * SLOTS, 3, 0x21, -1, 0);    # read and write; shared, anonymous
    @free_slots = 0 .. SLOTS - 1;
}

sub default_signals {
    for my $number (@DEFAULT_SIGNALS) {
        my $action = zeros(32);
        call('rt_sigaction', $number, $action, 0, 8);
    }
    my $blocked = sigset(@BLOCKED_SIGNALS);
    strict_call('rt_sigprocmask', 2, $blocked, 0, 8);
}

# -- the name of the main program

sub look_at_memory {
    my @fields = split ' ', (content('/proc/self/stat') =~ /.*\)(.*)/s)[0];
    $environ_at = $fields[47] + 0;
    $environ_size = $fields[48] - $fields[47];
}

# All places where some bytes stand.
sub places {
    my ($bytes) = @_;
    my @places;
    for my $line (split /\n/, content('/proc/self/maps')) {
        my @range = $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw.. \S+ \S+ 0 *(?:\[heap\])?$/ or next;
        # hex would warn of so large ones
        my ($from, $to) = map { unpack 'Q>', pack 'H16', '0' x (16 - length) . $_ } @range;
        my $memory = at($from, $to - $from);
        my $index = -1;
        while (($index = index $memory, $bytes, $index + 1) >= 0) {
            push @places, $from + $index;
        }
    }
    return @places;
}

sub at {
    my ($address, $size) = @_;
    return unpack "P$size", pack 'J', $address;
}

sub poke {
    my ($address, $bytes) = @_;
    my ($read_end, $write_end) = new_pipe();
    strict_call('write', $write_end, $bytes, length $bytes);
    strict_call('read', $read_end, $address, length $bytes);
    call('close', $_) for $read_end, $write_end;
}

# Find the copies that perl shows, by programs with errors; false in a child that goes on to be such a program.
sub find_name {
    my $name = "$own_name\0";
    # what was let go meanwhile begins otherwise; what follows "_<" is a key of the symbol table
    my @places = grep { at($_, length $name) eq $name and at($_ - 2, 2) ne '_<' } places($name);
    my %shown;
    for my $program (@FAULTY) {
        my ($errors, $its_errors) = new_pipe();
        my ($source, $its_source) = new_pipe();
        my $pid = fork // die "wsgicgi: fork: $!\n";
        if (not $pid) {
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
        my ($which) = $text =~ /^Execution of place (\d+); aborted/m
            or die "wsgicgi: this perl's messages are unlike others: $text\n";
        $shown{$which} = 1;
    }
    @names_at = @places[keys %shown];
    return 1;
}

# Find the count of evals, by which "(eval 1)" gets its name: what goes on by one with each.
sub find_evals {
    my $count;
    ($count) = eval('__FILE__') =~ /(\d+)/ for 1 .. 1000;
    my @places = grep { $_ % 4 == 0 } places(pack 'L', $count);
    for (1 .. 5) {
        ($count) = eval('__FILE__') =~ /(\d+)/;
        @places = grep { unpack('L', at($_, 4)) eq $count } @places;    # "==" would make $count a second one
    }
    return if @places != 1;
    poke($places[0], pack 'L', 2000);
    $evals_at = $places[0] if eval('__FILE__') eq '(eval 2001)';
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

# Load modules in a process of its own first, up to one that must not be: tell of each in turn what is wrong with it, if
# anything is, and which variables it reads.
sub tried {
    my ($files, @names) = @_;
    my ($answers, $its_answers) = new_pipe();
    my $pid = fork;
    return if not defined $pid;
    if (not $pid) {
        prctl(PR_SET_DUMPABLE, 1);
        alarm LOAD_SECONDS;
        no strict 'refs';
        no warnings 'once';
        *{'CORE::GLOBAL::require'} = \&noted_require;
        for my $name (@names) {
            my ($problem, @read) = try_to_load($name, $files);
            my $line = '=' . join("\t", $problem, @read) . "\n";
            call('write', $its_answers, $line, length $line);
            last if length $problem;
        }
        call('exit_group', 0);
    }
    call('close', $its_answers);
    my $text = '';
    while (length(my $more = read_some($answers, 4096))) { $text .= $more }
    call('close', $answers);
    waitpid $pid, 0;
    my @told = map { [ split /\t/, $_ ] } $text =~ /^=(.*)\n/mg;
    push @told, ['ends the process'] if @told < @names and not grep { length $_->[0] } @told;
    return @told;
}

our @loading;          # in a trial: files that are being loaded, each for the one before
my %circles;           # those that were asked for once more before they were done, with all that were loaded meanwhile

sub noted_require {
    my ($file) = @_;
    my ($at) = grep { $loading[$_] eq $file } 0 .. $#loading;
    $circles{$file}{$_} = 1 for defined $at ? @loading[ $at .. $#loading ] : ();
    local @loading = (@loading, $file);
    return CORE::require($file);
}

# Whether this one is all of its circle that other files ask for, among them a script's, so that it was the first there.
sub is_way_in {
    my ($name, $files) = @_;
    my $circle = $circles{$name};
    my %is_asked_for;
    for my $file (map { $files->{$_} } grep { not $circle->{$_} } keys %$files) {
        my $text = content($file) // return 0;
        $text =~ s/^=[a-zA-Z].*?(?:^=cut\b[^\n]*|\z)//gms;
        $text =~ s/^__(?:END|DATA)__\b.*//ms;
        for my $other (keys %$circle) {
            my $module = $other =~ s/\.pm$//r =~ s{/}{::}gr;
            $is_asked_for{$other} = 1 if $text =~ /\b(?:\Q$module\E\b(?!::)|\Q$other\E\b)/;
        }
    }
    return join(' ', keys %is_asked_for) eq $name;
}

sub try_to_load {
    my ($name, $files) = @_;
    my $before = fingerprint();
    my $environment = tie %ENV, '_zygote::Environment', %ENV;
    my $has_loaded_it = require_file($name);
    my $error = $@;
    untie %ENV;
    return cut("does not load: $error") if not $has_loaded_it;
    # which of them was first decides what they become; where that is not sure, it is left to those that use them
    return CIRCULAR if $circles{$name} and not is_way_in($name, $files);
    my @read = sort keys %{ $environment->{read} };
    my $of_requests = qr/^(?:\*|HTTP_|REQUEST_|QUERY_|PATH_|CONTENT_|SCRIPT_|REMOTE_|REDIRECT_|CGI_RUN_ID|UNIQUE_ID)/;
    my ($of_request) = grep { $_ =~ $of_requests } @read;
    return "reads the variable $of_request" if defined $of_request;
    return 'changes %ENV' if $environment->{is_changed};
    my $after = fingerprint();
    my ($change) = grep { $before->{$_} ne ($after->{$_} // '') } reverse sort keys %$before;
    return ($change // '', @read);
}

sub cut {
    my ($text) = @_;
    $text =~ s/\n.*//s;
    return substr $text, 0, 200;
}

sub require_file {
    my ($name) = @_;
    return eval { package main; local @_zygote::loading = (@_zygote::loading, $name); require $name; 1 };
}

# Load modules, with the environment of a script that wants them.
sub load {
    my ($script, $pairs, @wanted) = @_;
    my %files = map { my $file = file_of($_); defined $file ? ($_ => $file) : () } @wanted;
    my @names = grep { $files{$_} and not $INC{$_} and not $refused{$_} } @wanted or return;
    %files = (%files, (map { $_ => $INC{$_} } grep { defined $INC{$_} and not ref $INC{$_} } keys %INC), '' => $script);
    set_environment($pairs);
    while (@names) {
        my @told = tried(\%files, @names) or last;
        load_one(shift @names, @$_) for @told;
        @names = grep { not $INC{$_} } @names;
    }
    undef $@;
    %ENV = ();
    note_files();
    $size = size();
}

sub load_one {
    my ($name, $problem, @read) = @_;
    $problem //= '';
    $problem = cut("does not load: $@") if not length $problem and not require_file($name);
    if (length $problem) {
        $refused{$name} = 1;
        tell_log("the Perl module $name is not kept warm: it $problem") if $problem ne CIRCULAR;
        return;
    }
    $read_at_load{$_} = $ENV{$_} for @read;
}

# Whether what was loaded would have been another thing with a script's environment.
sub is_loaded_otherwise {
    my ($pairs) = @_;
    my %environment = map { split /=/, $_, 2 } @$pairs;
    for my $name (keys %read_at_load) {
        return 1 if ($environment{$name} // "\0") ne ($read_at_load{$name} // "\0");
    }
    return 0;
}

sub note_files {
    $files{$_} //= signature($_) for $^X, grep { defined and m{^/} } values %INC;
}

sub size {
    return (content('/proc/self/status') // '') =~ /^VmRSS:\s*(\d+)/m ? 1024 * $1 : 0;
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

# Load what a script has told that it uses, and let its slot go.
sub learn {
    my ($script) = @_;
    my $text = at($memory_at + SLOT * $script->{slot}, SLOT);
    push @free_slots, $script->{slot};
    $text =~ s/\0.*//s;
    return if $learns == 2;
    my @names = grep { m{^[A-Za-z_][\w/]*\.pm$} and ($learns or m{^CGI[./]}) } split /\n/, $text;
    load($script->{path}, $script->{environment}, @names);
}

# Where a module is that all scripts can have.
sub file_of {
    my ($name) = @_;
    my ($directory) = grep { not ref and m{^/} and -f "$_/$name" } @inc;
    return defined $directory ? "$directory/$name" : undef;
}

# -- scripts

sub serve {
    while (not $job and (defined $socket or %scripts)) {
        my $wanted = '';
        vec($wanted, $_, 1) = 1 for grep { defined } $socket, $signals;
        my @ending = grep { defined $_->{next_look} } values %scripts;
        my $count = select $wanted, undef, undef, @ending ? KILL_TICK : undef;
        if ($count > 0) {
            reap() if vec $wanted, $signals, 1;
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
    @frame{qw(first_line name is_executed count)} = splice @$strings, 0, 4;
    $frame{argv} = [ splice @$strings, 0, $frame{count} ];
    $frame{environment} = $strings;
    $frame{descriptors} = $descriptors;
    my $records = $descriptors->[3];
    load('/dev/null', $frame{environment}, @preload) if not $has_loaded++;
    if (has_changed()) {
        send_frame('X', 'N');
        record($records, REFUSED, ESTALE, AT_STALE);
    }
    elsif (is_loaded_otherwise($frame{environment})) {
        record($records, REFUSED, ENOTSUP, AT_UNFIT);
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
    my $environment = $frame->{environment};
    $frame->{slot} = new_slot($frame->{argv}[0]);
    $frame->{others} = length $frame->{limits}[2] ? count_others() : 0;
    my $pid = fork;
    if (not defined $pid) {
        push @free_slots, $frame->{slot} if defined $frame->{slot};
        return record($records, REFUSED, $! + 0);
    }
    if (not $pid) {
        $job = $frame;
        return;
    }
    send_frame('X', 'N') if ++$starts % LOOK_AFTER == 0 and size() > $size + GROWTH;
    my ($mark) = mark_of($environment);
    call('fcntl', $records, F_SETFL, O_NONBLOCK);
    $scripts{ $frame->{number} } = $by_pid{$pid} = {
        number => $frame->{number}, pid => $pid, records => $records, mark => $mark, is_reaped => 0,
        slot => $frame->{slot}, environment => defined $frame->{slot} ? $environment : undef,
        path => $frame->{argv}[0],
    };
}

# A slot for a script that did not yet tell what it uses.
sub new_slot {
    my ($path) = @_;
    my $signature = signature($path);
    return if ($seen{$path} // '') eq $signature or not @free_slots;
    %seen = () if keys %seen >= SEEN;
    $seen{$path} = $signature;
    my $slot = pop @free_slots;
    poke($memory_at + SLOT * $slot, "\0");
    return $slot;
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
        my ($user, $user_us, $system, $system_us, $max_rss) = unpack 'q5', $usage;
        my $cpu = 1_000_000 * ($user + $system) + $user_us + $system_us;
        record($script->{records}, ENDED, $signal ? -$signal : $status >> 8, 0, 1024 * $max_rss, $cpu);
        call('close', $script->{records});
        delete $scripts{ $script->{number} } if not defined $script->{next_look};
        learn($script) if defined $script->{slot};
    }
}

# -- the end of scripts, as in _warden.py

sub begin_end {
    my ($script) = @_;
    return if defined $script->{next_look};
    $script->{kill_at} = now() + KILL_GRACE;
    $script->{next_look} = 0;
    signal_all($script, SIGTERM);
    signal_all($script, SIGCONT);    # one that is stopped (SIGSTOP) takes no other signal
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

# The request's id, unless that is not the script's alone.
sub mark_of {
    my ($environment) = @_;
    return (grep({ /^CGI_RUN_ID=./ } @$environment), grep({ /^UNIQUE_ID=./ } @$environment))[0];
}

sub has_mark {
    my ($pid, $mark) = @_;
    return 0 if not defined $mark;
    return (mark_of([ split /\0/, content("/proc/$pid/environ") // '' ]) // '') eq $mark;
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
    my $path = $frame->{argv}[0];
    my $script = open_file($path, O_CLOEXEC);
    refuse($records, ENOTSUP, AT_UNFIT) if $script < 0 or not is_as_told($script, $path, $frame);
    strict_call('dup3', $script, MAIN, O_CLOEXEC);
    set_environment($frame->{environment});
    look_like_it($path, $frame);
    eval { set_limits($frame); 1 } or refuse($records, $! + 0, AT_LIMITS);
    record($records, STARTED, $$);
    close_from(MAIN + 1);
    begin_anew($path);
    $job = { slot => $frame->{slot}, directory => $path =~ m{^(.*/)} ? $1 : './' };
}

sub be_nice {
    my $nice = getpriority(0, 0) + $_[0];
    setpriority 0, 0, $nice > 19 ? 19 : $nice;
}

sub refuse {
    record(shift, REFUSED, shift, shift);
    call('exit_group', 127);
}

# Whether it is still the script that the server has seen, one that may be executed if that is how it would start, and
# none whose name a "# line" cannot carry.
sub is_as_told {
    my ($script, $path, $frame) = @_;
    return 0 if $frame->{is_executed} and call('faccessat', AT_FDCWD, $path, 1, 0) != 0;
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
    my ($first) = @_;
    return if call('close_range', $first, 0xffff_ffff, 0) == 0;
    opendir my $directory, '/proc/self/fd' or return;    # Linux before 5.9
    my @open = grep { /^\d/ and $_ >= $first } readdir $directory;
    closedir $directory;
    call('close', $_ + 0) for @open;
}

sub set_environment {
    my ($pairs) = @_;
    %ENV = ();
    for my $pair (@$pairs) {
        my ($name, $value) = split /=/, $pair, 2;
        $ENV{$name} = $value;
    }
}

sub look_like_it {
    my ($path, $frame) = @_;
    poke($_, "$path\0") for @names_at;
    $0 = $path;
    my ($mark) = mark_of($frame->{environment});    # for has_mark(), here and in the warden
    poke($environ_at, "$mark\0") if defined $mark and length $mark < $environ_size;
    poke($evals_at, pack 'L', 0) if defined $evals_at;
    prctl(PR_SET_NAME, "$frame->{name}\0");
    (undef, @ARGV) = @{ $frame->{argv} };
    delete $INC{'_zygote.pm'};
}

# What perl does first.
sub begin_anew {
    my ($path) = @_;
    $^T = time;
    srand;
    my $line = qq{# line 1 "$path"\n};
    Filter::Util::Call::filter_add(
        sub {
            Filter::Util::Call::filter_del();
            $_ = $line;
            $^H &= ~0x100;    # that there was a "use"
            return 1;
        }
    );
    $! = 0;
    $? = 0;
}

# Tell what the script uses beyond what was there, if that is not known.
sub tell_of_modules {
    return if not defined $job->{slot};
    my $directory = $job->{directory};
    my @names = grep {
        my $file = $INC{$_};
        defined $file and not ref $file and not $files{$file} and index($file, $directory) != 0;
    } keys %INC;
    my $text = '';
    for my $line (map { "$_\n" } @names) {
        $text .= $line if length($text) + length($line) < SLOT;
    }
    poke($memory_at + SLOT * $job->{slot}, "$text\0");
}

# The first INIT block of the program and its last END block: all that it uses at first, and what it has used in the
# end.
INIT {
    local ($@, $!, $_);
    eval { tell_of_modules() } if $job;    # with few descriptors it cannot
}

END {
    local ($@, $!, $_, $?);
    eval { tell_of_modules() } if $job;
}

package _zygote::Environment;

# %ENV, while a module is loaded for a trial: tells what it reads.

sub TIEHASH {
    my ($class, %pairs) = @_;
    return bless { pairs => \%pairs, read => {}, is_changed => 0 }, $class;
}

sub FETCH {
    my ($self, $name) = @_;
    $self->{read}{$name} = 1;
    return $self->{pairs}{$name};
}

sub EXISTS {
    my ($self, $name) = @_;
    $self->{read}{$name} = 1;
    return exists $self->{pairs}{$name};
}

sub FIRSTKEY {
    my ($self) = @_;
    $self->{read}{'*'} = 1;
    my $count = keys %{ $self->{pairs} };
    return each %{ $self->{pairs} };
}

sub NEXTKEY { return each %{ $_[0]{pairs} } }

sub SCALAR { return $_[0]->FIRSTKEY }

sub STORE { $_[0]{is_changed} = 1 }

sub DELETE { $_[0]{is_changed} = 1 }

sub CLEAR { $_[0]{is_changed} = 1 }

1;
