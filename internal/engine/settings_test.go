package engine

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

var update = flag.Bool("update", false, "rewrite what the tests compare with")

func mustParse(t *testing.T, explicit, defaults map[string]string) Settings {
	t.Helper()
	s, err := ParseSettings(explicit, defaults)
	if err != nil {
		t.Fatalf("ParseSettings(%v, %v): %v", explicit, defaults, err)
	}
	return s
}

func TestSettingTableIsSortedAndWhole(t *testing.T) {
	for i, d := range SettingDocs() {
		if i > 0 && settingTable[i-1].Name >= d.Name {
			t.Errorf("%s comes after %s: lookups need them sorted", d.Name, settingTable[i-1].Name)
		}
		if d.Doc == "" || d.Kind == "" {
			t.Errorf("%s lacks a doc or a kind", d.Name)
		}
		// The default is a value like any other, so that a tool may send back what it read.
		if s := mustParse(t, map[string]string{d.Name: d.Default}, nil); !reflect.DeepEqual(*s.values, *defaultValues) {
			t.Errorf("%s=%q, its default, changes something: %+v", d.Name, d.Default, *s.values)
		}
		if got, explicit := (Settings{}).Get(d.Name); got != d.Default || explicit {
			t.Errorf("Get(%s) of no settings = %q, %t, want %q, false", d.Name, got, explicit, d.Default)
		}
	}
}

func TestSettingsDefaults(t *testing.T) {
	var s Settings
	want := partition.Config{Log: log.Config{
		Level: log.Durable, SyncInterval: 100 * time.Millisecond, SegmentBytes: 1 << 30,
		SegmentAge: 7 * 24 * time.Hour, IndexIntervalBytes: 4096,
	}, MaxBatchBytes: 1048588}
	if got := s.Partition(); got != want {
		t.Errorf("partition config\n got %+v\nwant %+v", got, want)
	}
	if !s.Deletes() || s.Compacts() || s.Retention() != 7*24*time.Hour || s.RetentionBytes() != -1 ||
		s.MinCompactionLag() != 0 || s.MaxCompactionLag() != math.MaxInt64 || s.DeleteRetention() != 24*time.Hour ||
		s.MinDirtyRatio() != 0.5 || s.MaxBytes() != 0 || s.Durability() != log.Durable || !s.Evicts() {
		t.Errorf("defaults are not what the table says: %+v", *s.v())
	}
	if got := s.Explicit(); len(got) != 0 || got == nil {
		t.Errorf("Explicit() = %v, want an empty map", got)
	}
}

// Every value that is accepted does what it says.
func TestSettingsTakeEffect(t *testing.T) {
	cfg := func(change func(*partition.Config)) func(Settings) string {
		want := Settings{}.Partition()
		change(&want)
		return func(s Settings) string {
			if got := s.Partition(); got != want {
				return fmt.Sprintf("partition config %+v, want %+v", got, want)
			}
			return ""
		}
	}
	is := func(want any, get func(Settings) any) func(Settings) string {
		return func(s Settings) string {
			if got := get(s); got != want {
				return fmt.Sprintf("got %v, want %v", got, want)
			}
			return ""
		}
	}
	codec := func(c compress.Codec, level int, again bool) func(Settings) string {
		return cfg(func(p *partition.Config) { p.Compression, p.CompressionLevel, p.Recompress = c, level, again })
	}
	for _, row := range []struct {
		set  string // name=value, by semicolons
		fail func(Settings) string
	}{
		{"cleanup.policy=compact", cfg(func(p *partition.Config) { p.RequireKeys = true })},
		{"cleanup.policy=compact", is(false, func(s Settings) any { return s.Deletes() })},
		{"cleanup.policy= delete , compact", is([2]bool{true, true}, func(s Settings) any { return [2]bool{s.Deletes(), s.Compacts()} })},
		{"retention.ms=1000", is(time.Second, func(s Settings) any { return s.Retention() })},
		{"retention.ms= 1000 ", is(time.Second, func(s Settings) any { return s.Retention() })},
		{"retention.ms=-1", is(true, func(s Settings) any { return s.Retention() < 0 && !s.Evicts() })},
		{"retention.ms=9223372036854775807", is(time.Duration(math.MaxInt64), func(s Settings) any { return s.Retention() })},
		{"retention.bytes=7", is(int64(7), func(s Settings) any { return s.RetentionBytes() })},
		{"retention.ms=-1;retention.bytes=7", is(true, func(s Settings) any { return s.Evicts() })},
		{"embedlog.evict=false", is(false, func(s Settings) any { return s.Evicts() })},
		{"embedlog.evict=true;retention.ms=-1", is(true, func(s Settings) any { return s.Evicts() })},
		{"cleanup.policy=compact", is(false, func(s Settings) any { return s.Evicts() })},
		{"segment.bytes=4096", cfg(func(p *partition.Config) { p.Log.SegmentBytes = 4096 })},
		{"segment.ms=60000", cfg(func(p *partition.Config) { p.Log.SegmentAge = time.Minute })},
		{"index.interval.bytes=0", cfg(func(p *partition.Config) { p.Log.IndexIntervalBytes = 1 })},
		{"max.message.bytes=100", cfg(func(p *partition.Config) { p.MaxBatchBytes = 100 })},
		{"message.timestamp.type=LogAppendTime", cfg(func(p *partition.Config) { p.AppendTime = true })},
		{"compression.type=uncompressed", codec(compress.None, 0, true)},
		{"compression.type=gzip", codec(compress.Gzip, 0, true)},
		{"compression.type=gzip;compression.gzip.level=9", codec(compress.Gzip, 9, true)},
		{"compression.type=snappy", codec(compress.Snappy, 0, true)},
		{"compression.type=lz4", codec(compress.LZ4, 0, true)},
		{"compression.type=lz4;compression.lz4.level=12", codec(compress.LZ4, 12, true)},
		{"compression.type=zstd", codec(compress.Zstd, 3, true)},
		{"compression.type=zstd;compression.zstd.level=-5", codec(compress.Zstd, 1, true)},
		{"compression.gzip.level=9", codec(compress.None, 0, false)},
		{"embedlog.durability=os", cfg(func(p *partition.Config) { p.Log.Level = log.OS })},
		{"embedlog.durability=interval;embedlog.sync.interval.ms=5", cfg(func(p *partition.Config) { p.Log.Level, p.Log.SyncInterval = log.Interval, 5*time.Millisecond })},
		{"embedlog.zero.ahead=false", cfg(func(p *partition.Config) { p.Log.NoZeroing = true })},
		{"embedlog.recycle=TRUE", cfg(func(p *partition.Config) { p.Log.Recycle = true })},
		{"embedlog.max.bytes=8388608", cfg(func(p *partition.Config) { p.Log.CapBytes, p.Log.SegmentBytes = 8<<20, 1<<20 })},
		{"embedlog.max.bytes=8388608", is("1048576", func(s Settings) any { v, _ := s.Get("segment.bytes"); return v })},
		{"embedlog.max.bytes=8388608;segment.bytes=4194304", cfg(func(p *partition.Config) { p.Log.CapBytes, p.Log.SegmentBytes = 8<<20, 4<<20 })},
		{"min.compaction.lag.ms=5;max.compaction.lag.ms=5", is([2]time.Duration{5e6, 5e6}, func(s Settings) any { return [2]time.Duration{s.MinCompactionLag(), s.MaxCompactionLag()} })},
		{"cleanup.policy=compact;max.compaction.lag.ms=60000", cfg(func(p *partition.Config) { p.RequireKeys, p.Log.SegmentAge = true, time.Minute })},
		{"delete.retention.ms=0", is(time.Duration(0), func(s Settings) any { return s.DeleteRetention() })},
		{"min.cleanable.dirty.ratio=0.01", is(0.01, func(s Settings) any { return s.MinDirtyRatio() })},
	} {
		s := mustParse(t, fields(row.set), nil)
		if problem := row.fail(s); problem != "" {
			t.Errorf("%s: %s", row.set, problem)
		}
		// As defaults of the database they do the same.
		if problem := row.fail(mustParse(t, nil, fields(row.set))); problem != "" {
			t.Errorf("default %s: %s", row.set, problem)
		}
		// What was set can be sent back and forth.
		if again := mustParse(t, s.Explicit(), nil); !reflect.DeepEqual(again, s) {
			t.Errorf("%s: parsed again it is %+v, was %+v", row.set, again, s)
		}
	}
}

func fields(text string) map[string]string {
	m := make(map[string]string)
	for _, f := range strings.Split(text, ";") {
		if name, value, ok := strings.Cut(f, "="); ok {
			m[name] = value
		}
	}
	return m
}

func TestSettingsTopicOverDatabase(t *testing.T) {
	explicit, defaults := map[string]string{"retention.ms": "5"}, map[string]string{"retention.ms": "7", "segment.bytes": "4096"}
	s := mustParse(t, explicit, defaults)
	explicit["retention.ms"], defaults["segment.bytes"] = "not", "ours"
	for _, row := range []struct {
		name, value string
		explicit    bool
	}{{"retention.ms", "5", true}, {"segment.bytes", "4096", false}, {"cleanup.policy", "delete", false}, {"no.such", "", false}} {
		if got, on := s.Get(row.name); got != row.value || on != row.explicit {
			t.Errorf("Get(%s) = %q, %t, want %q, %t", row.name, got, on, row.value, row.explicit)
		}
	}
	if got := s.Explicit(); !reflect.DeepEqual(got, map[string]string{"retention.ms": "5"}) {
		t.Errorf("Explicit() = %v", got)
	}
}

// A default of the database gives way to what a topic says: it does not make it invalid.
func TestSettingsDefaultsGiveWay(t *testing.T) {
	s := mustParse(t, map[string]string{"embedlog.max.bytes": "8388608"}, map[string]string{"segment.bytes": "33554432"})
	if got, explicit := s.Get("segment.bytes"); got != "1048576" || explicit || s.Partition().Log.SegmentBytes != 1<<20 {
		t.Errorf("segment.bytes is %s, %t, %d in force; want an eighth of the cap", got, explicit, s.Partition().Log.SegmentBytes)
	}
	s = mustParse(t, map[string]string{"cleanup.policy": "compact"}, map[string]string{"embedlog.evict": "true"})
	if s.Evicts() {
		t.Error("a compacted topic lets go of its data")
	}
}

func TestSettingsRefused(t *testing.T) {
	for _, row := range []struct {
		set, bad string // the names that are reported
		says     string
	}{
		{"retention.ms=abc", "retention.ms", "whole number from -1"},
		{"retention.ms=-2", "retention.ms", "whole number from -1"},
		{"retention.ms=", "retention.ms", "whole number"},
		{"retention.ms=9223372036854775808", "retention.ms", "whole number"},
		{"segment.bytes=1023", "segment.bytes", "from 1024"},
		{"segment.bytes=2147483648", "segment.bytes", "2147483647"},
		{"segment.ms=0", "segment.ms", "from 1"},
		{"max.message.bytes=67108865", "max.message.bytes", "67108864"},
		{"cleanup.policy=", "cleanup.policy", "one or more of"},
		{"cleanup.policy=delete,squash", "cleanup.policy", "one or more of"},
		{"compression.type=GZIP", "compression.type", "one of producer"},
		{"compression.gzip.level=10", "compression.gzip.level", "9"},
		{"min.cleanable.dirty.ratio=NaN", "min.cleanable.dirty.ratio", "from 0 to 1"},
		{"min.cleanable.dirty.ratio=1.5", "min.cleanable.dirty.ratio", "from 0 to 1"},
		{"embedlog.durability=fsync", "embedlog.durability", "durable, interval, os"},
		{"embedlog.zero.ahead=yes", "embedlog.zero.ahead", "true or false"},
		{"embedlog.max.bytes=1000", "embedlog.max.bytes", "1048576"},
		{"embedlog.max.bytes=0", "embedlog.max.bytes", "1048576"},
		{"embedlog.max.bytes=2097152;segment.bytes=2097152", "embedlog.max.bytes", "twice segment.bytes"},
		{"min.compaction.lag.ms=6;max.compaction.lag.ms=5", "min.compaction.lag.ms", "above max.compaction.lag.ms"},
		{"cleanup.policy=compact;embedlog.evict=true", "embedlog.evict", "never deleted for room"},
		{"flush.ms=1000", "flush.ms", "embedlog.durability"},
		{"flush.messages=1", "flush.messages", "embedlog.durability"},
		{"min.insync.replicas=2", "min.insync.replicas", "one copy"},
		{"remote.storage.enable=true", "remote.storage.enable", "no remote storage"},
		{"message.timestamp.after.max.ms=3600000", "message.timestamp.after.max.ms", "not checked"},
		{"preallocate=perhaps", "preallocate", "true or false"},
		{"segment.jitter.ms=x", "segment.jitter.ms", "whole number"},
		{"retention=5", "retention", "retention.ms"},
		{"retension.ms=5", "retension.ms", "the nearest is retention.ms"},
		{"Cleanup.Policy=compact", "Cleanup.Policy", "the nearest is cleanup.policy"},
		{"zzzz=1", "zzzz", "no such topic setting"},
		{strings.Repeat("x", 100_000) + "=1", strings.Repeat("x", 100_000), "no such topic setting"},
		{"retention.ms=x;segment.ms=0;zzzz=1;segment.bytes=4096", "retention.ms segment.ms zzzz", "whole number"},
	} {
		for which, parse := range map[string]func(map[string]string) (Settings, error){
			"topic":    func(m map[string]string) (Settings, error) { return ParseSettings(m, nil) },
			"database": func(m map[string]string) (Settings, error) { return ParseSettings(nil, m) },
		} {
			if which == "database" && (row.bad == "embedlog.evict" || row.bad == "embedlog.max.bytes" && strings.Contains(row.set, ";")) {
				continue // a default that a topic's own settings make void is no contradiction
			}
			_, err := parse(fields(row.set))
			if !errors.Is(err, ErrInvalidSetting) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%s %.60s: error %v, want one that says %q", which, row.set, err, row.says)
				continue
			}
			if got := strings.Join(invalidNames(err), " "); got != row.bad {
				t.Errorf("%s %.60s: reported %.60s, want %.60s", which, row.set, got, row.bad)
			}
		}
	}
}

func invalidNames(err error) (names []string) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			names = append(names, invalidNames(e)...)
		}
		return names
	}
	var one *InvalidSettingError
	if errors.As(err, &one) {
		names = append(names, one.Name)
	}
	return names
}

// What tools of Kafka's send with a topic is taken.
func TestSettingsThatToolsSend(t *testing.T) {
	for name, set := range map[string]string{
		"Kafka Streams changelog":   "cleanup.policy=compact;message.timestamp.type=CreateTime",
		"Kafka Streams windowed":    "cleanup.policy=compact,delete;retention.ms=86400000;message.timestamp.type=CreateTime",
		"Kafka Streams repartition": "cleanup.policy=delete;retention.ms=-1;segment.bytes=52428800;message.timestamp.type=CreateTime",
		"Connect offsets":           "cleanup.policy=compact;min.insync.replicas=1;unclean.leader.election.enable=false",
		"a mirror":                  "preallocate=true;file.delete.delay.ms=0;segment.index.bytes=1024;segment.jitter.ms=5;leader.replication.throttled.replicas=*;flush.ms=9223372036854775807",
	} {
		if _, err := ParseSettings(fields(set), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// docs/settings.md is the table for people.
func TestSettingsDocument(t *testing.T) {
	const file = "../../docs/settings.md"
	var b strings.Builder
	b.WriteString(`# Topic settings

What can be set on a topic, at its creation or later, and database-wide as a default. The
table in ` + "`internal/engine/settings_table.go`" + ` is the source; a test rewrites this file
(` + "`go test ./internal/engine -run TestSettingsDocument -update`" + `). Names and defaults are
Kafka's (<https://kafka.apache.org/documentation/#topicconfigs>) where the line does not say
otherwise; names that begin with ` + "`embedlog.`" + ` are ours. A name that is not here, or a
value that does not hold, is refused, all bad ones at once.

A setting of Kafka's that would silently not hold is accepted at one value only, the one that
is true here. Settings that promise nothing to anybody, and that tools send, are accepted and
have no effect.

`)
	table := func(title string, in func(d SettingDoc) bool) {
		b.WriteString("## " + title + "\n\n| name | kind | default | |\n|---|---|---|---|\n")
		for _, d := range SettingDocs() {
			if !in(d) {
				continue
			}
			kind := string(d.Kind)
			if d.Unit != "" {
				kind += ", " + d.Unit
			}
			if len(d.Values) > 1 && d.Kind != KindBool {
				kind = strings.Join(d.Values, ", ")
			}
			def := d.Default
			if def == "9223372036854775807" {
				def = "2^63-1"
			}
			if def != "" {
				def = "`" + def + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, kind, def, d.Doc)
		}
	}
	table("Settings", func(d SettingDoc) bool { return !d.NoEffect && len(d.Values) != 1 })
	b.WriteString("\n")
	table("Accepted at one value", func(d SettingDoc) bool { return len(d.Values) == 1 })
	b.WriteString("\n")
	table("Accepted without effect", func(d SettingDoc) bool { return d.NoEffect })
	b.WriteString(`
## Groups

They are not settings of topics but fields of ` + "`embedlog.Options`" + `. A client sees them as settings of the node.

| name | option | default | |
|---|---|---|---|
`)
	for _, row := range []struct {
		name, option string
		def          any
		doc          string
	}{
		{"group.initial.rebalance.delay.ms", "GroupInitialDelay", defaultInitialDelay.Milliseconds(), "How long a classic group without members waits for more before its first generation, so that consumers which start together begin together. Kafka's default is 3000; negative is not at all."},
		{"group.max.session.timeout.ms", "GroupMaxSessionTimeout", defaultMaxSessionTimeout.Milliseconds(), "The longest session timeout that a classic member may ask for."},
		{"group.max.size", "GroupMaxSize", defaultGroupMaxSize, "How many members a group may have, of whichever protocol. Kafka has no bound."},
		{"group.min.session.timeout.ms", "GroupMinSessionTimeout", defaultMinSessionTimeout.Milliseconds(), "The shortest one: a client that is silent for so long is out."},
	} {
		fmt.Fprintf(&b, "| `%s` | `%s` | `%v` | %s |\n", row.name, row.option, row.def, row.doc)
	}
	want := b.String()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the table says (error %v): run with -update", file, err)
	}
	for _, d := range SettingDocs() {
		if !slices.ContainsFunc(strings.Split(want, "\n"), func(line string) bool { return strings.HasPrefix(line, "| `"+d.Name+"` |") }) {
			t.Errorf("%s is in no table", d.Name)
		}
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add("retention.ms", "5", "segment.bytes", "4096")
	f.Add("cleanup.policy", "compact,delete", "embedlog.max.bytes", "2000000")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		s, err := ParseSettings(map[string]string{name1: value1}, map[string]string{name2: value2})
		if err != nil {
			if !errors.Is(err, ErrInvalidSetting) {
				t.Fatalf("error %v is no ErrInvalidSetting", err)
			}
			return
		}
		again, err := ParseSettings(s.Explicit(), map[string]string{name2: value2})
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("what was accepted is not accepted again: %v", err)
		}
		if err := s.Partition().Log.Validate(); err != nil {
			t.Fatalf("accepted, and the log refuses it: %v", err)
		}
	})
}
