package query

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"

	"github.com/x/embedlog"
	"github.com/x/embedlog/codec"
	"github.com/x/embedlog/internal/sock"
	"github.com/x/embedlog/internal/views"
)

// offered is a graph as the command socket and metrics see it.
type offered struct{ *Graph }

func (o offered) View(name string) views.View {
	if v, ok := o.offers[name]; ok { // nobody writes to it any more
		return v
	}
	return nil
}

func (o offered) Rebuild(ctx context.Context) (generation int, err error) {
	r, err := o.beginRebuild(ctx)
	if err != nil {
		return 0, fmt.Errorf("rebuild view graph %s: %w", o.name, err)
	}
	return r.next.number, nil
}

// rebuilding is the rebuild that is under way, or the last one, where that came to nothing.
func (g *Graph) rebuilding() *sock.ViewRebuild {
	g.rebuildMu.Lock()
	r := g.rebuild
	g.rebuildMu.Unlock()
	if r == nil {
		return nil
	}
	info := &sock.ViewRebuild{Generation: r.next.number, Records: r.next.read.Load(), Left: -1}
	select {
	case <-r.done:
		if r.err == nil {
			return nil
		}
		info.Error = r.err.Error()
	default:
		if r.launched.Load() {
			info.Left = r.next.behind()
		}
	}
	return info
}

func (o offered) Info(ctx context.Context) sock.ViewGraph {
	info := offered{o.serving()}.info(whileBuilding(ctx))
	info.Rebuilding = o.rebuilding()
	return info
}

// info is that of a run of the graph.
func (o offered) info(ctx context.Context) sock.ViewGraph {
	s := o.Stats()
	info := sock.ViewGraph{
		Graph: o.name, State: sock.ViewRunning, Generation: o.number, Definition: o.Describe(), Tasks: len(o.slots), Views: []sock.ViewInfo{}, Sinks: o.contents.Sinks,
		Positions: []sock.ViewPosition{}, Topics: append(append([]string{}, o.contents.Changelogs...), o.generationName(), o.progressName()),
		Records: s.Records, Late: s.Late, NoKey: s.NoKey, DeadLetters: s.DeadLetters, Restarts: s.Restarts,
	}
	running := 0
	for i := range o.slots {
		o.slots[i].mu.Lock()
		if o.slots[i].task != nil {
			running++
		}
		o.slots[i].mu.Unlock()
	}
	if err := o.Err(); err != nil {
		info.State, info.Error = sock.ViewStopped, err.Error()
	} else if !o.open() {
		info.State = sock.ViewRebuilding
	} else if running < len(o.slots) {
		info.State = sock.ViewRestoring
	}
	for _, v := range o.contents.Views {
		one := sock.ViewInfo{View: v.Name, Rows: -1, KeyType: v.Key, ValueType: v.Value, Changelog: v.Changelog}
		for _, out := range o.outputs {
			if index, ok := strings.CutPrefix(out.name, v.Name+"."); ok && out.kind == "index" {
				one.Indexes = append(one.Indexes, index)
			}
		}
		if info.State == sock.ViewRunning {
			if n, err := o.offers[v.Name].len(ctx); err == nil {
				one.Rows = int64(n)
			}
		}
		info.Views = append(info.Views, one)
	}
	if info.State == sock.ViewRunning {
		if list, err := o.Lag(ctx); err == nil {
			for _, l := range list {
				p := sock.ViewPosition{Topic: l.Topic, Partition: l.Partition, Position: l.Position, LastStable: l.LastStable, Lag: l.Records, BehindMS: l.Behind.Milliseconds()}
				if l.Behind < 0 {
					p.BehindMS = -1
				}
				info.Positions = append(info.Positions, p)
			}
		}
	}
	return info
}

// offeredView is a view as it is offered.
type offeredView interface {
	views.View
	len(ctx context.Context) (int, error)
	stored(t *task) views.StoredView
}

// offer has a view be found by name, once the graph is started.
func (g *Graph) offer(name string, v offeredView) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.started {
		g.offers[name] = v
	}
}

// keeps notes what a stage keeps where.
func (g *Graph) keeps(t *task) {
	c := &g.contents
	c.Generations = g.generationName()
	for _, s := range t.stores {
		c.Changelogs = append(c.Changelogs, g.changelogName(s.label()))
	}
	for _, o := range t.stage.outputs {
		switch o.kind {
		case "view":
			c.Views = append(c.Views, g.offers[o.name].stored(t))
		case "sink":
			c.Sinks = append(c.Sinks, o.name)
		}
	}
}

type viewDoor[K, V any] struct{ v *View[K, V] }

func (d viewDoor[K, V]) len(ctx context.Context) (int, error) { return d.v.Len(ctx) }

func (d viewDoor[K, V]) stored(t *task) views.StoredView {
	s := views.StoredView{Name: d.v.name, Changelog: t.g.changelogName(t.g.storeNames.of(t.stage.index, d.v.t.n)), Key: codecType(d.v.t.key)}
	switch t.tables[d.v.t.n].(type) {
	case *storeRows[V, V], *storeRows[group[V], V], *storeRows[group[first[V]], V]: // others keep more than the values
		s.Value = codecType(d.v.t.value)
	}
	return s
}

// codecType is what a codec's bytes are.
func codecType(c any) string {
	switch {
	case equal(c, codec.String):
		return "string"
	case equal(c, codec.Bytes):
		return "bytes"
	case equal(c, codec.Int64):
		return "int64"
	}
	t, json := reflect.TypeOf(c), reflect.TypeOf(codec.JSON[int]{})
	if t.PkgPath() == json.PkgPath() && strings.HasPrefix(t.Name(), "JSON[") {
		return "json"
	}
	return ""
}

// key is the key that somebody has named.
func (d viewDoor[K, V]) key(k sock.ViewKey) (key K, err error) {
	if k.JSON != nil {
		err = json.Unmarshal(k.JSON, &key)
	} else {
		b := k.Bytes
		if b == nil {
			b = []byte{}
		}
		key, err = d.v.t.key.Decode(b)
	}
	if err != nil {
		return key, &sock.Error{Code: sock.CodeInvalid, Message: fmt.Sprintf("not a key of view %s: %v", d.v.name, err)}
	}
	return key, nil
}

func (d viewDoor[K, V]) row(key K, value V, deleted bool) (row sock.ViewRow, err error) {
	if row.Key, err = d.v.t.key.Append(nil, key); err != nil {
		return row, fmt.Errorf("view %s: encode the key: %w", d.v.name, err)
	}
	row.KeyJSON = asJSON(key)
	if row.Deleted = deleted; deleted {
		return row, nil
	}
	if row.Value, err = d.v.t.value.Append(nil, value); err != nil {
		return row, fmt.Errorf("view %s: encode the value: %w", d.v.name, err)
	}
	row.ValueJSON = asJSON(value)
	return row, nil
}

// asJSON is nil for bytes, and for what JSON has no words for, such as a NaN.
func asJSON(v any) json.RawMessage {
	if _, ok := v.([]byte); ok {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

func (d viewDoor[K, V]) Get(ctx context.Context, q *sock.ViewGet) (row sock.ViewRow, found bool, err error) {
	key, err := d.key(q.Key)
	if err != nil {
		return row, false, err
	}
	var value V
	switch {
	case q.At != "":
		var s *Snapshot
		if s, err = d.snapshot(ctx, q.At, false); err != nil {
			return row, false, err
		}
		defer s.Release()
		value, found, err = d.v.In(s).Get(key)
	case q.Now:
		value, found, err = d.v.GetNow(ctx, key)
	default:
		value, found, err = d.v.Get(ctx, key)
	}
	if err != nil || !found {
		return row, false, err
	}
	row, err = d.row(key, value, false)
	return row, true, err
}

// snapshot is one of a version, of now, or of all that was acknowledged.
func (d viewDoor[K, V]) snapshot(ctx context.Context, at string, now bool) (*Snapshot, error) {
	if at != "" {
		v, err := parseVersion(at)
		if err != nil {
			return nil, &sock.Error{Code: sock.CodeInvalid, Message: err.Error()}
		}
		return d.v.g.SnapshotAt(ctx, v)
	}
	if now {
		return d.v.g.SnapshotNow(ctx)
	}
	return d.v.g.Snapshot(ctx)
}

// parseVersion reads what Version.String has written.
func parseVersion(text string) (v Version, err error) {
	for _, word := range strings.Fields(text) {
		where, offset, ok1 := strings.Cut(word, "@")
		i := strings.LastIndexByte(where, '/')
		if !ok1 || i < 1 {
			return nil, fmt.Errorf("a version is TOPIC/PARTITION@OFFSET, with spaces between, not %q", word)
		}
		n, err1 := strconv.ParseInt(where[i+1:], 10, 32)
		o, err2 := strconv.ParseInt(offset, 10, 64)
		if err1 != nil || err2 != nil || n < 0 || o < 0 {
			return nil, fmt.Errorf("a version is TOPIC/PARTITION@OFFSET, with spaces between, not %q", word)
		}
		v = append(v, embedlog.Position{Topic: where[:i], Partition: int32(n), LeaderEpoch: -1, Offset: o})
	}
	return v, nil
}

func (d viewDoor[K, V]) Scan(ctx context.Context, q *sock.ViewOpen) iter.Seq2[sock.ViewRow, error] {
	return func(yield func(sock.ViewRow, error) bool) {
		if err := d.scan(ctx, q, func(row sock.ViewRow) bool { return yield(row, nil) }); err != nil {
			yield(sock.ViewRow{}, err)
		}
	}
}

func (d viewDoor[K, V]) scan(ctx context.Context, q *sock.ViewOpen, yield func(sock.ViewRow) bool) error {
	bounds := [2]string{}
	for i, k := range []*sock.ViewKey{q.From, q.To} {
		if k == nil {
			continue
		}
		key, err := d.key(*k)
		if err != nil {
			return err
		}
		raw, err := d.v.t.key.Append(nil, key)
		if err != nil {
			return fmt.Errorf("view %s: encode the key: %w", d.v.name, err)
		}
		bounds[i] = string(raw)
	}
	if q.To != nil && bounds[1] == "" {
		return nil // nothing is before the empty key
	}
	if len(q.Prefix) > 0 {
		bounds[0] = max(bounds[0], string(q.Prefix))
		if end := endOfPrefix(q.Prefix); end != "" && (bounds[1] == "" || end < bounds[1]) {
			bounds[1] = end
		}
	}
	s, err := d.snapshot(ctx, q.At, q.Now)
	if err != nil {
		return err
	}
	defer s.Release()
	for row, err := range d.v.In(s).walk(bounds[0], bounds[1]) {
		if err != nil {
			return err
		}
		r, err := d.row(row.Key, row.Value, false)
		if err != nil || !yield(r) {
			return err
		}
	}
	return nil
}

func (d viewDoor[K, V]) Watch(ctx context.Context) iter.Seq2[sock.ViewRow, error] {
	return func(yield func(sock.ViewRow, error) bool) {
		for c, err := range d.v.Watch(ctx) {
			row := sock.ViewRow{Version: c.Version.String()}
			if err == nil && c.Version == nil {
				row, err = d.row(c.Key, c.Value, c.Deleted)
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}
