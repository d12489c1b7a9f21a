package main

import (
	"io"
	"strconv"
	"strings"

	"github.com/x/embedlog/internal/sock"
)

// printFunc writes one record.
type printFunc func(w io.Writer, r *sock.Record) error

// printer is how records are printed: by the template, as JSON, or the value and a
// newline.
func printer(template string, asJSON bool) (printFunc, error) {
	var buf []byte // used again for each record
	switch {
	case template != "":
		pieces, err := parseTemplate(template)
		if err != nil {
			return nil, err
		}
		return func(w io.Writer, r *sock.Record) error {
			buf = buf[:0]
			for _, p := range pieces {
				buf = p(buf, r)
			}
			_, err := w.Write(buf)
			return err
		}, nil
	case asJSON:
		return func(w io.Writer, r *sock.Record) (err error) {
			if buf, err = jsonLine(buf[:0], r); err == nil {
				_, err = w.Write(buf)
			}
			return err
		}, nil
	}
	return func(w io.Writer, r *sock.Record) error {
		buf = append(append(buf[:0], r.Value...), '\n')
		_, err := w.Write(buf)
		return err
	}, nil
}

// piece writes one part of a template behind dst.
type piece func(dst []byte, r *sock.Record) []byte

// tokens are kcat's, with V for the value's length and d for a date that can be read.
var tokens = map[byte]piece{
	't': func(dst []byte, r *sock.Record) []byte { return append(dst, r.Topic...) },
	'p': func(dst []byte, r *sock.Record) []byte { return strconv.AppendInt(dst, int64(r.Partition), 10) },
	'o': func(dst []byte, r *sock.Record) []byte { return strconv.AppendInt(dst, r.Offset, 10) },
	'k': func(dst []byte, r *sock.Record) []byte { return append(dst, r.Key...) },
	'v': func(dst []byte, r *sock.Record) []byte { return append(dst, r.Value...) },
	's': func(dst []byte, r *sock.Record) []byte { return append(dst, r.Value...) },
	'K': func(dst []byte, r *sock.Record) []byte { return appendLen(dst, r.Key) },
	'V': func(dst []byte, r *sock.Record) []byte { return appendLen(dst, r.Value) },
	'S': func(dst []byte, r *sock.Record) []byte { return appendLen(dst, r.Value) },
	'T': func(dst []byte, r *sock.Record) []byte { return strconv.AppendInt(dst, r.Time.UnixMilli(), 10) },
	'd': func(dst []byte, r *sock.Record) []byte {
		return r.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
	},
	'h': func(dst []byte, r *sock.Record) []byte {
		for i, h := range r.Headers {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(append(dst, h.Key...), '='), h.Value...)
		}
		return dst
	},
	'%': func(dst []byte, _ *sock.Record) []byte { return append(dst, '%') },
}

// appendLen writes a length as kcat does: -1 for null.
func appendLen(dst, b []byte) []byte {
	if b == nil {
		return append(dst, "-1"...)
	}
	return strconv.AppendInt(dst, int64(len(b)), 10)
}

func parseTemplate(s string) ([]piece, error) {
	// Escapes and tokens cannot be told apart once one of them was replaced: \x25 is
	// a percent sign and no token.
	var pieces []piece
	for s != "" {
		before, after, found := strings.Cut(s, "%")
		// A backslash in front of the percent sign is an escape of nothing known, and
		// unescape says so.
		text, err := unescape(before)
		if err != nil {
			return nil, usagef("-f: %w", err)
		}
		if text != "" {
			pieces = append(pieces, func(dst []byte, _ *sock.Record) []byte { return append(dst, text...) })
		}
		if !found {
			break
		}
		if after == "" {
			return nil, usagef("-f: a %% at the end; %%%% prints one")
		}
		token, ok := tokens[after[0]]
		if !ok {
			return nil, usagef("-f: %%%c is not known; there are %s", after[0], tokenNames)
		}
		pieces = append(pieces, token)
		s = after[1:]
	}
	return pieces, nil
}

const tokenNames = "%t %p %o %k %v %h %T %d %K %V %%"
