package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// warnings shows people what the database logs while this process has it open: what
// a command waits for, what was cut after a power cut, what was skipped.
type warnings struct {
	a     *app
	attrs string
}

// Enabled implements slog.Handler: what is not worth a warning is not shown.
func (w *warnings) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && !w.a.quiet
}

// Handle writes one line.
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	r.Attrs(func(at slog.Attr) bool {
		b.WriteString(attrText(at))
		return true
	})
	w.a.note("%s %s%s%s", w.a.paint(w.a.stderr, yellow, "warning:"), r.Message, w.attrs, oneLine(errors.New(b.String())))
	return nil
}

// WithAttrs implements slog.Handler.
func (w *warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := &warnings{a: w.a, attrs: w.attrs}
	for _, at := range attrs {
		more.attrs += attrText(at)
	}
	return more
}

// WithGroup implements slog.Handler; groups are not used.
func (w *warnings) WithGroup(string) slog.Handler { return w }

func attrText(at slog.Attr) string {
	if s := at.Value.String(); s != "" {
		return fmt.Sprintf("; %s: %s", at.Key, s)
	}
	return ""
}
