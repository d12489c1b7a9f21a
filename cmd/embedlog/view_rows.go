package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/x/embedlog/internal/sock"
)

// viewing is one run of a command that prints rows.
type viewing struct {
	a                  *app
	keyType, valueType string
	now                bool
	at                 string
	from, to, prefix   string
	max                int64
	c                  *client
	g                  *sock.ViewGraph
	v                  *sock.ViewInfo
	count              int64
}

// rowTypes are what bytes can be taken for.
var rowTypes = []string{"string", "int64", "json", "hex"}

const rowHelp = `A key is text, or what the view's codec says; --key-type takes it for a string,
an int64, json or hex. Keys and values are printed as JSON has them, strings
bare. A view that is read from its topics is printed as its codecs say, where
they are the usual ones and the topic keeps plain values; otherwise as text, or
in hex where it is none, unless --key-type and --value-type say what it is.`

func (s *viewing) flags(f *pflag.FlagSet) {
	f.StringVar(&s.keyType, "key-type", "", "what keys are: string, int64, json, hex")
	f.StringVar(&s.valueType, "value-type", "", "what values are that are read from topics: the same")
}

func (s *viewing) check() error {
	for name, kind := range map[string]string{"key-type": s.keyType, "value-type": s.valueType} {
		if kind != "" && !slices.Contains(rowTypes, kind) {
			return usagef("--%s is %s, not %q", name, strings.Join(rowTypes, ", "), kind)
		}
	}
	return nil
}

func (a *app) viewGet() *cobra.Command {
	s := &viewing{a: a}
	cmd := &cobra.Command{
		Use:   "get VIEW KEY",
		Short: "Print the row of a key",
		Long:  "get prints the value of a key, and exits with 5 when there is no row of it.\n\n" + storedHelp + "\n\n" + rowHelp,
		Example: `  embedlog view get shop/spent ann
  embedlog view get counts 7 --key-type int64 --format json`,
		Args: takes(2, 2, "a view and a key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.now && s.at != "" {
				return usagef("--now, or --at a version: choose one")
			}
			return s.run(cmd.Context(), args[0], func(ctx context.Context) error { return s.get(ctx, args[1]) })
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().BoolVar(&s.now, "now", false, "do not wait for what was acknowledged before")
	cmd.Flags().StringVar(&s.at, "at", "", "as of a version, TOPIC/PARTITION@OFFSET..., of a view that keeps its past")
	return cmd
}

func (a *app) viewScan() *cobra.Command {
	s := &viewing{a: a}
	cmd := &cobra.Command{
		Use:   "scan VIEW [--prefix PREFIX | --from KEY --to KEY] [-n N]",
		Short: "Print the rows in the order of their keys",
		Long: `scan prints a view's rows at one version, a line each: key, tab, value, in the
order of the bytes of the keys. --to is not included.

` + storedHelp + "\n\n" + rowHelp,
		Example: `  embedlog view scan shop/spent --prefix a
  embedlog view scan shop/spent --from ann --to bob --format json`,
		Args: takes(1, 1, "a view"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.now && s.at != "" {
				return usagef("--now, or --at a version: choose one")
			}
			if s.prefix != "" && (s.from != "" || s.to != "") {
				return usagef("--prefix, or --from and --to: choose one")
			}
			if cmd.Flags().Changed("max-rows") && s.max < 1 {
				return usagef("--max-rows is at least 1, not %d", s.max)
			}
			return s.run(cmd.Context(), args[0], s.scan)
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().StringVar(&s.prefix, "prefix", "", "only keys that begin so")
	cmd.Flags().StringVar(&s.from, "from", "", "begin at this key")
	cmd.Flags().StringVar(&s.to, "to", "", "end before this key")
	cmd.Flags().Int64VarP(&s.max, "max-rows", "n", 0, "stop after that many rows")
	cmd.Flags().BoolVar(&s.now, "now", false, "do not wait for what was acknowledged before")
	cmd.Flags().StringVar(&s.at, "at", "", "as of a version, TOPIC/PARTITION@OFFSET..., of a view that keeps its past")
	return cmd
}

func (a *app) viewWatch() *cobra.Command {
	s := &viewing{a: a}
	cmd := &cobra.Command{
		Use:   "watch VIEW [-n N]",
		Short: "Print the rows, and those that change",
		Long: `watch prints a view's rows and goes on with those that change, until Ctrl-C or
-n. Of a row that changes fast the last value is printed. A row that was deleted
is its key, without a tab. With --format json there are lines with a version,
too: all changes up to it were printed.

` + storedHelp + ` What
changes is then what is committed.

` + rowHelp,
		Example: "  embedlog view watch shop/spent",
		Args:    takes(1, 1, "a view"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("max-rows") && s.max < 1 {
				return usagef("--max-rows is at least 1, not %d", s.max)
			}
			return s.run(cmd.Context(), args[0], s.watch)
		},
	}
	s.flags(cmd.Flags())
	cmd.Flags().Int64VarP(&s.max, "max-rows", "n", 0, "stop after that many rows")
	return cmd
}

// errEnough ends a walk.
var errEnough = errors.New("enough rows")

// run finds the view and has f print.
func (s *viewing) run(ctx context.Context, name string, f func(context.Context) error) error {
	if err := s.check(); err != nil {
		return err
	}
	ctx, stop := whileRead(ctx, s.a.stdout)
	defer stop()
	err := s.a.with(ctx, false, func(c *client) error {
		s.c = c
		graphs, err := liveGraphs(ctx, c)
		if err != nil {
			return err
		}
		if s.g, s.v, err = findView(graphs, name); exitCode(err) == exitNotFound { // what is computed here goes first
			if graphs, err = s.a.graphs(ctx, c); err != nil {
				return err
			}
			s.g, s.v, err = findView(graphs, name)
		}
		if err != nil {
			return err
		}
		if s.at != "" && !s.live() {
			return usagef("nobody computes %s/%s now: its topics have the last commit alone; leave --at out", s.g.Graph, s.v.View)
		}
		if err = f(ctx); s.count > 0 && isClosing(err) {
			err = errLost // some rows were printed: not again
		}
		return err
	})
	switch {
	case context.Cause(ctx) == errReaderGone, errors.Is(err, errEnough):
		return nil
	case errors.Is(err, context.Canceled), code(err) == sock.CodeCancelled:
		return &exitError{code: exitInterrupted}
	}
	return err
}

func (s *viewing) live() bool { return s.g.State != sock.ViewStored }

func (s *viewing) name() sock.ViewName { return sock.ViewName{Graph: s.g.Graph, View: s.v.View} }

func (s *viewing) get(ctx context.Context, text string) error {
	key, err := s.key(text)
	if err != nil {
		return err
	}
	var rows []sock.ViewRow
	if s.live() {
		if rows, err = call[[]sock.ViewRow](ctx, s.c, sock.OpViewGet, sock.ViewGet{ViewName: s.name(), Key: key, Now: s.now, At: s.at}); err != nil {
			return err
		}
	} else {
		topic, err := changelogOf(ctx, s.c, s.v)
		if err != nil {
			return err
		}
		raw := bytesOf(key)
		found, err := latest(ctx, s.c, topic, raw)
		if err != nil {
			return err
		}
		if r, ok := found[string(raw)]; ok {
			rows = append(rows, sock.ViewRow{Key: r.Key, Value: r.Value})
		}
	}
	if len(rows) == 0 {
		return notFoundf("view %s/%s has no row of %s", s.g.Graph, s.v.View, text)
	}
	if s.a.asJSON() {
		return s.print(&rows[0])
	}
	return s.a.say("%s", s.text(rows[0].Value, rows[0].ValueJSON, s.valueType, s.v.ValueType))
}

func (s *viewing) scan(ctx context.Context) error {
	q := sock.ViewOpen{ViewName: s.name(), Now: s.now, At: s.at, Prefix: []byte(s.prefix)}
	if s.prefix != "" && (s.keyType == "hex" || s.keyType == "int64") {
		key, err := s.key(s.prefix)
		if err != nil {
			return err
		}
		q.Prefix = bytesOf(key)
	}
	for _, b := range []struct {
		text string
		key  **sock.ViewKey
	}{{s.from, &q.From}, {s.to, &q.To}} {
		if b.text != "" {
			key, err := s.key(b.text)
			if err != nil {
				return err
			}
			*b.key = &key
		}
	}
	if s.live() {
		return s.walk(ctx, q)
	}
	_, err := s.stored(ctx, &q)
	return err
}

// stored prints the rows that are in a view's topic.
func (s *viewing) stored(ctx context.Context, q *sock.ViewOpen) (*sock.Topic, error) {
	topic, err := changelogOf(ctx, s.c, s.v)
	if err != nil {
		return nil, err
	}
	rows, err := latest(ctx, s.c, topic, nil)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		switch {
		case q.From != nil && key < string(bytesOf(*q.From)), q.To != nil && key >= string(bytesOf(*q.To)), !strings.HasPrefix(key, string(q.Prefix)):
			continue
		}
		if err := s.print(&sock.ViewRow{Key: []byte(key), Value: rows[key].Value}); err != nil {
			return nil, err
		}
	}
	return topic, nil
}

// walk prints the rows of a walk of the session's.
func (s *viewing) walk(ctx context.Context, q sock.ViewOpen) error {
	if _, err := call[struct{}](ctx, s.c, sock.OpViewOpen, q); err != nil {
		return err
	}
	for {
		r, err := call[sock.ViewRows](ctx, s.c, sock.OpViewRows, sock.ViewPoll{MaxRows: pollRecords, Wait: pollWait})
		if err != nil || r.Done {
			return err
		}
		for i := range r.Rows {
			if err := s.print(&r.Rows[i]); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (s *viewing) watch(ctx context.Context) error {
	if s.live() {
		return s.walk(ctx, sock.ViewOpen{ViewName: s.name(), Watch: true})
	}
	if _, err := s.stored(ctx, &sock.ViewOpen{}); err != nil { // and the consumer stands behind them
		return err
	}
	for {
		recs, err := s.c.poll(ctx, sock.Poll{MaxRecords: pollRecords, Wait: pollWait}, func(*sock.Moved) {})
		if err != nil {
			return err
		}
		for _, r := range recs {
			if err := s.print(&sock.ViewRow{Key: r.Key, Value: r.Value, Deleted: r.Value == nil}); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// print prints a row, and says when there are enough.
func (s *viewing) print(r *sock.ViewRow) error {
	if r.Version != "" {
		if s.a.asJSON() {
			return s.a.json(rowLine{Graph: s.g.Graph, View: s.v.View, Version: r.Version})
		}
		return nil
	}
	var err error
	switch {
	case s.a.asJSON():
		line := rowLine{Graph: s.g.Graph, View: s.v.View, Deleted: r.Deleted}
		line.Key, line.KeyBase64 = s.json(r.Key, r.KeyJSON, s.keyType, s.v.KeyType)
		if !r.Deleted {
			line.Value, line.ValueBase64 = s.json(r.Value, r.ValueJSON, s.valueType, s.v.ValueType)
		}
		err = s.a.json(line)
	case r.Deleted:
		err = s.a.say("%s", s.text(r.Key, r.KeyJSON, s.keyType, s.v.KeyType))
	default:
		err = s.a.say("%s\t%s", s.text(r.Key, r.KeyJSON, s.keyType, s.v.KeyType), s.text(r.Value, r.ValueJSON, s.valueType, s.v.ValueType))
	}
	if s.count++; err == nil && s.count == s.max {
		err = errEnough
	}
	return err
}

// rowLine is a row as a line of JSON. docs/cli.md documents it.
type rowLine struct {
	Graph       string          `json:"graph"`
	View        string          `json:"view"`
	Key         json.RawMessage `json:"key,omitempty"`
	KeyBase64   []byte          `json:"key_base64,omitempty"`
	Value       json.RawMessage `json:"value,omitempty"`
	ValueBase64 []byte          `json:"value_base64,omitempty"`
	Deleted     bool            `json:"deleted,omitempty"`
	Version     string          `json:"version,omitempty"`
}

// kindOf is what bytes are: what was said, or what the view's codec says.
func kindOf(said, known string) string {
	if said != "" {
		return said
	}
	return known
}

// json is bytes as JSON, or nothing, and they are base64 then.
func (s *viewing) json(b []byte, is json.RawMessage, said, known string) (json.RawMessage, []byte) {
	if is != nil && said == "" {
		return is, nil
	}
	switch kind := kindOf(said, known); {
	case kind == "json" && json.Valid(b):
		return b, nil
	case kind == "int64" && len(b) == 8:
		return strconv.AppendInt(nil, int64(binary.BigEndian.Uint64(b)), 10), nil
	case kind == "hex":
		text, _ := quote(hex.EncodeToString(b)) // hex has nothing to be refused
		return text, nil
	case utf8.Valid(b):
		if text, err := quote(string(b)); err == nil {
			return text, nil
		}
	}
	return nil, b
}

// text is bytes for people.
func (s *viewing) text(b []byte, is json.RawMessage, said, known string) string {
	j, raw := s.json(b, is, said, known)
	if j == nil {
		return hex.EncodeToString(raw)
	}
	var text string
	if j[0] == '"' && json.Unmarshal(j, &text) == nil {
		return text
	}
	return string(j)
}

// key is a key that was typed.
func (s *viewing) key(text string) (sock.ViewKey, error) {
	switch kindOf(s.keyType, s.v.KeyType) {
	case "int64":
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return sock.ViewKey{}, usagef("a key of view %s/%s is a number, not %q; --key-type says otherwise", s.g.Graph, s.v.View, text)
		}
		return sock.ViewKey{Bytes: binary.BigEndian.AppendUint64(nil, uint64(n))}, nil
	case "json":
		var b bytes.Buffer
		if json.Compact(&b, []byte(text)) != nil {
			return sock.ViewKey{}, usagef("a key of view %s/%s is JSON, such as %q: not %s; --key-type says otherwise", s.g.Graph, s.v.View, `"ann"`, text)
		}
		return sock.ViewKey{JSON: b.Bytes()}, nil
	case "hex":
		b, err := hex.DecodeString(text)
		if err != nil {
			return sock.ViewKey{}, usagef("%q is not hex: %w", text, err)
		}
		return sock.ViewKey{Bytes: b}, nil
	}
	return sock.ViewKey{Bytes: []byte(text)}, nil
}

// bytesOf is a key as a topic has it.
func bytesOf(k sock.ViewKey) []byte {
	if k.JSON != nil {
		return k.JSON
	}
	return k.Bytes
}
