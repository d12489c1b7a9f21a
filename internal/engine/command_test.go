package engine

import (
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/log"
)

func testID(n byte) TopicID { return TopicID{n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, n} }

var commandTable = []struct {
	name string
	c    command
	want string // bytes, as Go writes them
}{
	{"create", command{kind: createTopicCommand, topic: topicMeta{id: testID('A'), name: "orders", partitions: 300, settings: map[string]string{"b": "2", "a": ""}}},
		"\x01\x01A\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eA\x06orders\xac\x02\x00\x02\x01a\x00\x01b\x012"},
	{"create internal", command{kind: createTopicCommand, topic: topicMeta{id: testID('A'), name: "__x", partitions: 1, internal: true, settings: map[string]string{}}},
		"\x01\x01A\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eA\x03__x\x01\x01\x00"},
	{"alter", command{kind: alterTopicCommand, topic: topicMeta{id: testID('A')}, set: map[string]string{"k": "v"}, unset: []string{"a", "b"}},
		"\x01\x02A\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eA\x01\x01k\x01v\x02\x01a\x01b"},
	{"add partitions", command{kind: addPartitionsCommand, topic: topicMeta{id: testID('A')}, total: 8}, "\x01\x03A\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eA\b"},
	{"delete", command{kind: deleteTopicCommand, topic: topicMeta{id: testID('A')}}, "\x01\x04A\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eA"},
	{"deleted", command{kind: topicDeletedCommand, topic: topicMeta{id: testID('A')}}, "\x01\x05A\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eA"},
	{"allocate", command{kind: allocateIDsCommand, count: 1000}, "\x01\x06\xe8\a"},
	{"empty snapshot", command{kind: snapshotCommand, flags: snapshotFirst | snapshotLast}, "\x01\a\x03\x00\x00\x00"},
	{"snapshot", command{kind: snapshotCommand, flags: snapshotFirst, nextID: 5,
		topics:   []*topicMeta{{id: testID('A'), name: "a", partitions: 1, settings: map[string]string{}}},
		deleting: []*topicMeta{{id: testID('B'), name: "b", partitions: 2, settings: map[string]string{}}}},
		"\x01\a\x01\x05\x01A\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eA\x01a\x01\x00\x00\x01B\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0eB\x01b\x02\x00\x00"},
}

func TestCommandBytes(t *testing.T) {
	for _, row := range commandTable {
		got := row.c.encode()
		if string(got) != row.want {
			t.Errorf("%s: encoded as %q, want %q", row.name, got, row.want)
		}
		c, err := decodeCommand([]byte(row.want))
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
		} else if again := c.encode(); string(again) != row.want {
			t.Errorf("%s: decoded to %+v", row.name, c)
		}
		for n := range row.want {
			if _, err := decodeCommand([]byte(row.want[:n])); !errors.Is(err, errCommand) {
				t.Errorf("%s: its first %d bytes give %v", row.name, n, err)
			}
		}
		if _, err := decodeCommand([]byte(row.want + "x")); !errors.Is(err, errCommand) {
			t.Errorf("%s: with a byte more: %v", row.name, err)
		}
	}
}

func TestCommandRefuses(t *testing.T) {
	id := string(testID('A').bytes())
	long := strings.Repeat("x", maxSettingValue)
	var many strings.Builder
	for i := range 5 { // of 16 KiB each: more than all settings may have
		fmt.Fprintf(&many, "\x01%c\x80\x80\x01%s", 'a'+i, long)
	}
	for _, row := range []struct {
		name, b string
		want    error
	}{
		{"nothing", "", errCommand},
		{"a newer version", "\x02\x01whatever", log.ErrNewerFormat},
		{"a newer kind", "\x01\x16whatever", log.ErrNewerFormat},
		{"version 0", "\x00\x04" + id, errCommand},
		{"kind 0", "\x01\x00", errCommand},
		{"a number with a byte too many", "\x01\x06\xe8\x87\x00", errCommand},
		{"a number without an end", "\x01\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", errCommand},
		{"partitions above the limit", "\x01\x03" + id + "\xa1\x8d\x06", errCommand},
		{"a name above the limit", "\x01\x01" + id + "\xfa\x01" + strings.Repeat("n", 250) + "\x01\x00\x00", errCommand},
		{"a length past the end", "\x01\x01" + id + "\x50orders", errCommand},
		{"flags that are not known", "\x01\x01" + id + "\x01a\x01\x02\x00", errCommand},
		{"settings out of order", "\x01\x02" + id + "\x02\x01b\x00\x01a\x00\x00", errCommand},
		{"a setting twice", "\x01\x02" + id + "\x02\x01a\x00\x01a\x00\x00", errCommand},
		{"names out of order", "\x01\x02" + id + "\x00\x02\x01b\x01a", errCommand},
		{"too many settings", "\x01\x02" + id + "\x81\x02", errCommand},
		{"too large settings", "\x01\x02" + id + "\x05" + many.String() + "\x00", errCommand},
		{"more topics than there are", "\x01\x07\x03\x00\xff\xff\x1f", errCommand},
		{"snapshot flags", "\x01\x07\x04\x00\x00\x00", errCommand},
		{"too large", "\x01\x04" + strings.Repeat("x", maxCommandBytes), errCommand},
	} {
		if c, err := decodeCommand([]byte(row.b)); !errors.Is(err, row.want) {
			t.Errorf("%s: got %+v, %v, want %v", row.name, c, err, row.want)
		}
	}
}

func (id TopicID) bytes() []byte { return id[:] }

// Whatever the bytes: no panic, and what is taken is what is written for it.
func FuzzCommand(f *testing.F) {
	for _, row := range commandTable {
		f.Add([]byte(row.want))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			if !errors.Is(err, errCommand) && !errors.Is(err, log.ErrNewerFormat) {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if again := c.encode(); string(again) != string(b) {
			t.Fatalf("%q is decoded to %+v and encoded as %q", b, c, again)
		}
		if c.kind == createTopicCommand || c.kind == snapshotCommand {
			m := newMetadata()
			before := fmt.Sprintf("%+v", m)
			if _, err := m.apply(c); err != nil && fmt.Sprintf("%+v", m) != before {
				t.Fatalf("%q fails with %v and changes the state", b, err)
			}
		}
	})
}

func FuzzTopicFile(f *testing.F) {
	f.Add((&topicFile{id: testID('A'), name: "orders", made: 3, making: 5}).encode())
	f.Add((&identity{cluster: testID('A'), node: 7, directory: testID('B')}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if lines := strings.SplitAfter(string(b), "\n"); len(lines) > 1 && strings.HasPrefix(lines[len(lines)-2], "crc32c ") {
			// With a checksum that fits, so that what is behind it is tried as well.
			body := strings.Join(lines[:len(lines)-2], "")
			b = fmt.Appendf(nil, "%scrc32c %08x\n", body, crc32.Checksum([]byte(body), castagnoli))
		}
		if file, err := decodeTopicFile(b); err == nil && string(file.encode()) != string(b) {
			t.Errorf("topic file %q is decoded to %+v", b, file)
		}
		if id, err := decodeIdentity(b); err == nil && string(id.encode()) != string(b) {
			t.Errorf("FORMAT %q is decoded to %+v", b, id)
		}
	})
}

// naive is the metadata as one would say it: a list.
type naive struct {
	topics, deleting []topicMeta
	nextID           int64
}

func (n *naive) find(list []topicMeta, id TopicID) int {
	return slices.IndexFunc(list, func(t topicMeta) bool { return t.id == id })
}

func (n *naive) apply(c *command) (ok bool) {
	at := n.find(n.topics, c.topic.id)
	switch c.kind {
	case createTopicCommand:
		for _, t := range n.topics {
			if strings.ReplaceAll(t.name, ".", "_") == strings.ReplaceAll(c.topic.name, ".", "_") {
				return false
			}
		}
		if at >= 0 || n.find(n.deleting, c.topic.id) >= 0 || checkTopicName(c.topic.name) != nil || c.topic.partitions < 1 {
			return false
		}
		n.topics = append(n.topics, c.topic)
	case alterTopicCommand:
		if at < 0 {
			return false
		}
		s := maps.Clone(n.topics[at].settings)
		for _, name := range c.unset {
			delete(s, name)
		}
		maps.Copy(s, c.set)
		n.topics[at].settings = s
	case addPartitionsCommand:
		if at < 0 || c.total <= n.topics[at].partitions {
			return false
		}
		n.topics[at].partitions = c.total
	case deleteTopicCommand:
		if at < 0 {
			return false
		}
		n.deleting = append(n.deleting, n.topics[at])
		n.topics = slices.Delete(n.topics, at, at+1)
	case topicDeletedCommand:
		at := n.find(n.deleting, c.topic.id)
		if at < 0 {
			return false
		}
		n.deleting = slices.Delete(n.deleting, at, at+1)
	case allocateIDsCommand:
		if c.count < 1 {
			return false
		}
		n.nextID += int64(c.count)
	}
	return true
}

// describe writes a state so that equal ones give equal text.
func describe(nextID int64, topics, deleting []topicMeta) string {
	byID := func(list []topicMeta) string {
		slices.SortFunc(list, func(a, b topicMeta) int { return strings.Compare(string(a.id[:]), string(b.id[:])) })
		return fmt.Sprintf("%+v", list)
	}
	return fmt.Sprintf("next %d\ntopics %s\ndeleting %s", nextID, byID(topics), byID(deleting))
}

func (m *metadata) describe() string {
	var topics, deleting []topicMeta
	for _, t := range m.byName {
		topics = append(topics, *t)
	}
	for _, t := range m.deleting {
		deleting = append(deleting, *t)
	}
	return describe(m.nextID, topics, deleting)
}

func randomCommand(r *rand.Rand) *command {
	some := func() map[string]string {
		m := map[string]string{}
		for range r.IntN(3) {
			m[string(rune('a'+r.IntN(3)))] = fmt.Sprint(r.IntN(10))
		}
		return m
	}
	c := &command{kind: commandKind(1 + r.IntN(6)), topic: topicMeta{id: testID(byte('A' + r.IntN(8)))}}
	switch c.kind {
	case createTopicCommand:
		names := []string{"a", "a.b", "a_b", "A", "..", "", "c", "__d"}
		c.topic.name, c.topic.partitions, c.topic.settings = names[r.IntN(len(names))], r.IntN(4), some()
		c.topic.internal = strings.HasPrefix(c.topic.name, internalPrefix)
	case alterTopicCommand:
		c.set = some()
		for _, name := range []string{"a", "b", "c"} {
			if r.IntN(3) == 0 {
				c.unset = append(c.unset, name)
			}
		}
	case addPartitionsCommand:
		c.total = r.IntN(10)
	case allocateIDsCommand:
		c.count = r.IntN(5)
	}
	return c
}

// Random commands do to the metadata what they do to a list, a refused one changes
// nothing, and at any time the snapshot is another way to the same state.
func TestMetadataAgainstANaiveOne(t *testing.T) {
	for seed := range uint64(testcount.N(300)) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, n := newMetadata(), &naive{}
		for i := range 100 {
			c, err := decodeCommand(randomCommand(r).encode())
			if err != nil {
				t.Fatal(err)
			}
			before := m.describe()
			first, err := m.apply(c)
			was := n.nextID
			if ok := n.apply(c); ok != (err == nil) {
				t.Fatalf("seed %d, command %d: %+v: got %v, holds: %t\n%s", seed, i, c, err, ok, before)
			}
			if c.kind == allocateIDsCommand && err == nil && first != was {
				t.Fatalf("seed %d, command %d: allocated from %d, want %d", seed, i, first, was)
			}
			if err != nil && m.describe() != before {
				t.Fatalf("seed %d, command %d: %v, and it changed\n%s\nto\n%s", seed, i, err, before, m.describe())
			}
			want := describe(n.nextID, slices.Clone(n.topics), slices.Clone(n.deleting))
			if got := m.describe(); got != want {
				t.Fatalf("seed %d, command %d:\ngot  %s\nwant %s", seed, i, got, want)
			}
			if r.IntN(20) == 0 {
				m = throughSnapshot(t, m)
			}
		}
	}
}

// throughSnapshot is the state that the snapshot of m makes, over one that is there.
func throughSnapshot(t *testing.T, m *metadata) *metadata {
	t.Helper()
	to := newMetadata()
	if _, err := to.apply(&command{kind: createTopicCommand, topic: topicMeta{id: testID('Z'), name: "zz", partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.snapshot() {
		if err := to.replay(c.encode()); err != nil {
			t.Fatal(err)
		}
	}
	if to.describe() != m.describe() || to.bytes != m.bytes || !reflect.DeepEqual(to.alike, m.alike) {
		t.Fatalf("got\n%s\nfrom a snapshot of\n%s", to.describe(), m.describe())
	}
	return to
}

// A snapshot of many topics comes in parts that fit a record, and counts when the
// last one is there.
func TestLargeSnapshot(t *testing.T) {
	m := newMetadata()
	topics := testcount.N(100_000)
	for i := range topics {
		id := TopicID{1, byte(i), byte(i >> 8), byte(i >> 16)}
		name := fmt.Sprintf("%s-%d", strings.Repeat("n", 200), i)
		if _, err := m.apply(&command{kind: createTopicCommand, topic: topicMeta{id: id, name: name, partitions: 1 + i%5, settings: map[string]string{"retention.ms": "1000"}}}); err != nil {
			t.Fatal(err)
		}
	}
	parts := m.snapshot()
	if len(parts) < 2 {
		t.Fatalf("%d parts", len(parts))
	}
	to := newMetadata()
	for i, c := range parts {
		b := c.encode()
		if len(b) > maxCommandBytes {
			t.Fatalf("part %d has %d bytes", i, len(b))
		}
		if len(to.byName) != 0 {
			t.Fatalf("the snapshot counts before part %d of %d", i, len(parts))
		}
		if err := to.replay(b); err != nil {
			t.Fatal(err)
		}
	}
	if len(to.byName) != topics || to.bytes != m.bytes {
		t.Fatalf("%d topics of %d", len(to.byName), topics)
	}
}

// A snapshot that was cut off by a crash changes nothing, whatever comes behind it.
func TestHalfASnapshot(t *testing.T) {
	m := newMetadata()
	for i := range 3 {
		m.add(&topicMeta{id: testID(byte('A' + i)), name: fmt.Sprint("t", i), partitions: 1, settings: map[string]string{}})
	}
	before := m.describe()
	first := &command{kind: snapshotCommand, flags: snapshotFirst}
	last := &command{kind: snapshotCommand, flags: snapshotLast, nextID: 99}
	if err := m.replay(first.encode()); err != nil || m.describe() != before {
		t.Fatalf("%v: the first part alone gives\n%s", err, m.describe())
	}
	if err := m.replay((&command{kind: allocateIDsCommand, count: 1}).encode()); err != nil || m.nextID != 1 {
		t.Fatal(err, m.nextID)
	}
	if err := m.replay(last.encode()); !errors.Is(err, errCommand) {
		t.Fatalf("a last part whose first was given up: %v", err)
	}
	for _, c := range []*command{first, first, last} { // begun twice, as after a failed attempt
		if err := m.replay(c.encode()); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.byName) != 0 || m.nextID != 99 {
		t.Fatalf("after a whole one: %s", m.describe())
	}
	twice := &topicMeta{id: testID('A'), name: "a", partitions: 1}
	bad := &command{kind: snapshotCommand, flags: snapshotFirst | snapshotLast, topics: []*topicMeta{twice, twice}}
	if err := m.replay(bad.encode()); !errors.Is(err, errCommand) || m.nextID != 99 {
		t.Fatalf("a topic twice: %v", err)
	}
}

func TestTopicID(t *testing.T) {
	for range 1000 {
		id := newID()
		if back, err := ParseTopicID(id.String()); err != nil || back != id || id.String()[0] == '-' {
			t.Fatalf("%s: %v, %v", id, back, err)
		}
	}
	for _, bad := range []string{"", "a", strings.Repeat("A", 21) + "B", strings.Repeat("A", 23), strings.Repeat("A", 21) + "=", strings.Repeat("+", 22), strings.Repeat("A", 10) + "\n" + strings.Repeat("A", 11)} {
		if id, err := ParseTopicID(bad); err == nil {
			t.Errorf("%q is taken for %s", bad, id)
		}
	}
	if zero, err := ParseTopicID(strings.Repeat("A", 22)); err != nil || !zero.IsZero() {
		t.Errorf("the zero id: %v", err)
	}
}
