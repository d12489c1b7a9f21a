package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/log"
)

// The exit codes are part of the interface: docs/cli.md lists them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitDamage      = 3
	exitLocked      = 4
	exitNotFound    = 5
	exitInterrupted = 130
)

// exitError is an error that knows its exit code. Without an error there is
// nothing more to say.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is an error of the person who typed the command.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// notFoundf is for what is named and not there.
func notFoundf(format string, args ...any) error {
	return &exitError{exitNotFound, fmt.Errorf(format, args...)}
}

// exitCode decides once how a command that failed with err ends.
func exitCode(err error) int {
	var known *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &known):
		return known.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, log.ErrLocked):
		return exitLocked
	case errors.Is(err, log.ErrCorrupt):
		return exitDamage
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	}
	switch code(err) {
	case sock.CodeUnknownTopic, sock.CodeUnknownPart, sock.CodeUnknownGroup, sock.CodeUnknownUser, sock.CodeUnknownNode, sock.CodeUnknownView:
		return exitNotFound
	case sock.CodeCorrupt:
		return exitDamage
	case sock.CodeInvalid, sock.CodeNotYet:
		return exitUsage
	case sock.CodeCancelled:
		return exitInterrupted
	}
	return exitFailure
}

// oneLine is what is said of an error: several that were joined are one line, too.
func oneLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimSpace(lines[i]), "embedlog: ")
	}
	return strings.ReplaceAll(strings.Join(lines, "; "), ": embedlog: ", ": ")
}
