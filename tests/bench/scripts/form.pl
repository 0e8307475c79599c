#!/usr/bin/perl
use strict;
use warnings;
use CGI;

my $query = CGI->new;
my $name = CGI::escapeHTML(scalar $query->param('name'));
my $text = CGI::escapeHTML('"' . $query->param('text') . '"');
print $query->header(-type => 'text/html', -charset => 'utf-8'), "<p>$name $text 2000</p>\n";
