package raftrepl

import (
	"context"
	"io"
	stdlog "log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives what the library says to a slog.Logger. Its Info is what ordinary
// elections say, which is told as Debug; its errors are calls to peers that failed, and
// are warnings here: what is an error to us, the group says itself.
type raftLogger struct {
	to   *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLogger)(nil)

func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Warn:
		return slog.LevelInfo
	case hclog.Error:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Log implements hclog.Logger.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slogLevel(level)
	if level == hclog.Off || !l.to.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = f[1:] // the values; slog prints them its own way
		}
	}
	l.to.Log(context.Background(), to, "raft: "+msg, args...)
}

// The rest implements hclog.Logger in terms of Log.

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) is(level hclog.Level) bool {
	return l.to.Enabled(context.Background(), slogLevel(level))
}
func (l *raftLogger) IsTrace() bool      { return l.is(hclog.Trace) }
func (l *raftLogger) IsDebug() bool      { return l.is(hclog.Debug) }
func (l *raftLogger) IsInfo() bool       { return l.is(hclog.Info) }
func (l *raftLogger) IsWarn() bool       { return l.is(hclog.Warn) }
func (l *raftLogger) IsError() bool      { return l.is(hclog.Error) }
func (l *raftLogger) ImpliedArgs() []any { return l.args }
func (l *raftLogger) Name() string       { return l.name }
func (l *raftLogger) SetLevel(hclog.Level) {
	// The slog.Logger has its own.
}
func (l *raftLogger) GetLevel() hclog.Level { return hclog.Debug }

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{to: l.to.With(args...), name: l.name, args: append(l.args[:len(l.args):len(l.args)], args...)}
}

func (l *raftLogger) Named(name string) hclog.Logger {
	return &raftLogger{to: l.to, name: name, args: l.args}
}
func (l *raftLogger) ResetNamed(name string) hclog.Logger { return l.Named(name) }

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *stdlog.Logger {
	return stdlog.New(io.Discard, "", 0)
}
func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
