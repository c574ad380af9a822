#!/bin/sh
# Says its name and its words, a NUL after each.
printf '%s\0' "${0##*/}" "$@"
