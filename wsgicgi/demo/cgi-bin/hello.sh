#!/bin/sh
# Greet in plain text: nothing in it can be markup, so nothing needs escaping.

# The header ends with an empty line.
printf 'Content-Type: text/plain; charset=utf-8\n'
printf 'X-Content-Type-Options: nosniff\n'
printf '\n'

printf 'Hello from the shell\n\n'
printf 'REQUEST_METHOD  %s\n' "${REQUEST_METHOD-}"
printf 'SCRIPT_NAME     %s\n' "${SCRIPT_NAME-}"
printf 'PATH_INFO       %s\n' "${PATH_INFO-}"
printf 'QUERY_STRING    %s\n' "${QUERY_STRING-}"
printf 'SERVER_PROTOCOL %s\n' "${SERVER_PROTOCOL-}"
printf 'REMOTE_ADDR     %s\n' "${REMOTE_ADDR-}"
