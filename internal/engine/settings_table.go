package engine

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/x/embedlog/log"
)

// SettingKind is the type of a setting by Kafka's name.
type SettingKind string

// The kinds, as DescribeConfigs names them.
const (
	KindBool   SettingKind = "boolean"
	KindString SettingKind = "string"
	KindInt    SettingKind = "int"
	KindLong   SettingKind = "long"
	KindDouble SettingKind = "double"
	KindList   SettingKind = "list"
)

// SettingDoc describes a topic setting, for people and for tools that ask.
type SettingDoc struct {
	Name    string
	Kind    SettingKind
	Default string
	Unit    string   // "ms", "bytes" or empty
	Values  []string // all that are allowed, where they can be listed
	Doc     string
	// NoEffect says that the setting is accepted because tools send it, and means
	// nothing here: see Doc.
	NoEffect bool
}

// setting is a row of the table.
type setting struct {
	SettingDoc
	// parse puts text into v, or says why it cannot be.
	parse func(text string, v *settingValues) (reason string)
}

// SettingDocs returns every topic setting there is, by name.
func SettingDocs() []SettingDoc {
	docs := make([]SettingDoc, len(settingTable))
	for i := range settingTable {
		docs[i] = settingTable[i].SettingDoc
		docs[i].Values = slices.Clone(docs[i].Values)
	}
	return docs
}

// Names that the code names.
const (
	settingCleanup      = "cleanup.policy"
	settingSegmentBytes = "segment.bytes"
	settingMinLag       = "min.compaction.lag.ms"
	settingMaxLag       = "max.compaction.lag.ms"
	settingMaxBytes     = "embedlog.max.bytes"
	settingEvict        = "embedlog.evict"
	settingDurability   = "embedlog.durability"
)

const (
	maxLong = math.MaxInt64 // Kafka's word for "without bound"
	maxInt  = math.MaxInt32

	lz4DefaultLevel = 9
	// minMaxBytes is the smallest cap of a partition: eight segments of 128 KiB.
	minMaxBytes = 1 << 20
)

// settingTable is every topic setting, by name. Defaults are Kafka 4's
// (kafka.apache.org/documentation, "Topic Configs"), but for those that say why not.
var settingTable = []setting{
	list(settingCleanup, "delete", []string{"delete", "compact"}, func(v *settingValues, has func(string) bool) {
		v.delete, v.compact = has("delete"), has("compact")
	}, "What becomes of old data: `delete` removes whole segments by `retention.ms` and `retention.bytes`, `compact` keeps the last record of each key and refuses records without one. Both may be given, separated by a comma."),
	number("compression.gzip.level", KindInt, "-1", "", -1, 9, func(v *settingValues) *int64 { return &v.gzipLevel },
		"Level when `compression.type` is gzip; -1 is the codec's own default, which 0 is, too."),
	number("compression.lz4.level", KindInt, strconv.Itoa(lz4DefaultLevel), "", 1, 17, func(v *settingValues) *int64 { return &v.lz4Level },
		"Level when `compression.type` is lz4. 9 is the fast compressor, as in Kafka; levels above 12 are 12."),
	choice("compression.type", "producer", []string{"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"}, func(v *settingValues, s string) { v.compression = s },
		"What batches are stored with. `producer` keeps each as its producer made it; anything else compresses again what comes otherwise."),
	number("compression.zstd.level", KindInt, "3", "", -131072, 22, func(v *settingValues) *int64 { return &v.zstdLevel },
		"Level when `compression.type` is zstd; levels below 1 are 1."),
	number("delete.retention.ms", KindLong, "86400000", "ms", 0, maxLong, func(v *settingValues) *int64 { return &v.deleteRetentionMs },
		"How long a tombstone stays in a compacted topic after the compaction that first saw it: the time a reader has to see it."),
	choice(settingDurability, "durable", []string{"durable", "interval", "os"}, func(v *settingValues, s string) {
		v.level = map[string]log.Level{"durable": log.Durable, "interval": log.Interval, "os": log.OS}[s]
	}, "When an append is acknowledged: `durable` after fdatasync; `interval` at once, synced within `embedlog.sync.interval.ms`; `os` at once, it survives a kill of the process and not a power cut. See durability.md."),
	choice(settingEvict, "auto", []string{"auto", "true", "false"}, func(v *settingValues, s string) { v.evict = s },
		"Whether the oldest data may go before its time when the database's cap, or `embedlog.max.bytes`, is reached. `auto` is yes for a topic whose data is deleted anyway: `cleanup.policy` contains delete and `retention.ms` or `retention.bytes` is not -1. Without delete, nothing ever goes."),
	number(settingMaxBytes, KindLong, "-1", "bytes", -1, maxLong, func(v *settingValues) *int64 { return &v.maxBytes },
		"Hard cap of what one partition may take on the disk, indexes and what is laid ahead of the writer included; -1 is none. At least 1 MiB, and twice the topic's own `segment.bytes`.",
		func(v *settingValues) string {
			if v.maxBytes >= 0 && v.maxBytes < minMaxBytes {
				return fmt.Sprintf("must be -1 or at least %d", minMaxBytes)
			}
			return ""
		}),
	boolean("embedlog.recycle", "false", func(v *settingValues) *bool { return &v.recycle },
		"Keep one segment file that retention frees, to be written over: its blocks need not be found again. Only at `durable`."),
	number("embedlog.sync.interval.ms", KindLong, "100", "ms", 1, maxLong, func(v *settingValues) *int64 { return &v.syncIntervalMs },
		"Within what time an append at `embedlog.durability` = interval is synced: what a power cut can take."),
	boolean("embedlog.zero.ahead", "true", func(v *settingValues) *bool { return &v.zeroAhead },
		"Write zeros ahead of the data, so that a sync changes no file size. Turned off it spares flash half of the writes and makes syncs slower."),
	unused("file.delete.delay.ms", KindLong, "60000", "ms", 0, maxLong,
		"Files of deleted segments go at once; who reads one keeps it until he is done."),
	only("flush.messages", KindLong, strconv.FormatInt(maxLong, 10), "when data is synced is said by "+settingDurability,
		"Not here: `embedlog.durability` says when data is synced."),
	only("flush.ms", KindLong, strconv.FormatInt(maxLong, 10), "when data is synced is said by "+settingDurability+" and embedlog.sync.interval.ms",
		"Not here: `embedlog.durability` and `embedlog.sync.interval.ms` say when data is synced."),
	text("follower.replication.throttled.replicas", "Replication is not throttled."),
	number("index.interval.bytes", KindInt, "4096", "bytes", 0, maxInt, func(v *settingValues) *int64 { return &v.indexInterval },
		"How far the entries of an index lie apart: smaller finds offsets faster and takes more room."),
	text("leader.replication.throttled.replicas", "Replication is not throttled."),
	only("local.retention.bytes", KindLong, "-2", "there is no remote storage: use retention.bytes", "There is no remote storage."),
	only("local.retention.ms", KindLong, "-2", "there is no remote storage: use retention.ms", "There is no remote storage."),
	number(settingMaxLag, KindLong, strconv.FormatInt(maxLong, 10), "ms", 1, maxLong, func(v *settingValues) *int64 { return &v.maxLagMs },
		"How old the oldest record that was not compacted may become before its partition is compacted whatever the dirty ratio says."),
	number("max.message.bytes", KindInt, "1048588", "bytes", log.BatchHeaderLen, 64<<20, func(v *settingValues) *int64 { return &v.maxMessageBytes },
		"The largest record batch, as it is stored. At most 64 MiB."),
	only("message.timestamp.after.max.ms", KindLong, strconv.FormatInt(maxLong, 10), "timestamps are not checked against the clock, which a device may not have",
		"Timestamps are taken as they come: a device may have no clock at boot. Kafka's default is one hour."),
	only("message.timestamp.before.max.ms", KindLong, strconv.FormatInt(maxLong, 10), "timestamps are not checked against the clock, which a device may not have",
		"Timestamps are taken as they come."),
	choice("message.timestamp.type", "CreateTime", []string{"CreateTime", "LogAppendTime"}, func(v *settingValues, s string) { v.appendTime = s == "LogAppendTime" },
		"Whether a record carries the time its producer gave it or that of its append, which never goes back."),
	double("min.cleanable.dirty.ratio", "0.5", 0, 1, func(v *settingValues) *float64 { return &v.dirtyRatio },
		"What part of a compacted partition's closed segments must be dirty before it is compacted: smaller takes less room and writes more."),
	number(settingMinLag, KindLong, "0", "ms", 0, maxLong, func(v *settingValues) *int64 { return &v.minLagMs },
		"How long a record stays as it was appended before compaction may touch it."),
	only("min.insync.replicas", KindInt, "1", "there is one copy of the data: a larger number could not hold", "There is one copy."),
	boolUnused("preallocate", "false", "`embedlog.zero.ahead` does it better: it follows the writer."),
	only("remote.log.copy.disable", KindBool, "false", "there is no remote storage", "There is no remote storage."),
	only("remote.log.delete.on.disable", KindBool, "false", "there is no remote storage", "There is no remote storage."),
	only("remote.storage.enable", KindBool, "false", "there is no remote storage", "There is no remote storage."),
	number("retention.bytes", KindLong, "-1", "bytes", -1, maxLong, func(v *settingValues) *int64 { return &v.retentionBytes },
		"The oldest segments of a partition go while at least that much is left without them; -1 is no bound. Counts where `cleanup.policy` contains delete. For a hard bound see `embedlog.max.bytes`."),
	number("retention.ms", KindLong, "604800000", "ms", -1, maxLong, func(v *settingValues) *int64 { return &v.retentionMs },
		"A segment goes when its newest record is older, and it has been closed for that long while the database was open, so that a clock that jumps deletes nothing; -1 keeps data for ever. Counts where `cleanup.policy` contains delete."),
	number(settingSegmentBytes, KindInt, "1073741824", "bytes", 1024, maxInt, func(v *settingValues) *int64 { return &v.segmentBytes },
		"Size at which a segment is closed and the next begun; deletion and compaction work by whole closed segments. Where `embedlog.max.bytes` is set and this is not, or not on the topic and too large for it, an eighth of that; under the database's cap (MaxBytes) and set nowhere, a 32nd of the cap. Kafka's least is 1 MiB; small devices want less."),
	unused("segment.index.bytes", KindInt, "10485760", "bytes", 4, maxInt,
		"Indexes grow as they need."),
	unused("segment.jitter.ms", KindLong, "0", "ms", 0, maxLong,
		"Segments are closed by each partition's own appends, which spreads them well enough."),
	number("segment.ms", KindLong, "604800000", "ms", 1, maxLong, func(v *settingValues) *int64 { return &v.segmentMs },
		"Age at which a segment that holds records is closed even if it is not full, so that retention and compaction get at it."),
	boolUnused("unclean.leader.election.enable", "false", "A permission that is never made use of."),
}

func findSetting(name string) *setting {
	i, ok := slices.BinarySearchFunc(settingTable, name, func(s setting, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return nil
	}
	return &settingTable[i]
}

// number is a whole number between two bounds, and what more may be asked of it.
func number(name string, kind SettingKind, def, unit string, least, most int64, field func(*settingValues) *int64, doc string, more ...func(*settingValues) string) setting {
	return setting{SettingDoc{Name: name, Kind: kind, Default: def, Unit: unit, Doc: doc}, func(text string, v *settingValues) string {
		n, reason := wholeNumber(text, least, most)
		if reason != "" {
			return reason
		}
		was := *field(v)
		*field(v) = n
		for _, check := range more {
			if reason := check(v); reason != "" {
				*field(v) = was
				return reason
			}
		}
		return ""
	}}
}

func wholeNumber(text string, least, most int64) (n int64, reason string) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || n < least || n > most:
		return 0, fmt.Sprintf("must be a whole number from %d to %d", least, most)
	default:
		return n, ""
	}
}

func double(name, def string, least, most float64, field func(*settingValues) *float64, doc string) setting {
	return setting{SettingDoc{Name: name, Kind: KindDouble, Default: def, Doc: doc}, func(text string, v *settingValues) string {
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !(x >= least && x <= most) { // so that NaN is refused
			return fmt.Sprintf("must be a number from %v to %v", least, most)
		}
		*field(v) = x
		return ""
	}}
}

func boolean(name, def string, field func(*settingValues) *bool, doc string) setting {
	return setting{SettingDoc{Name: name, Kind: KindBool, Default: def, Values: []string{"true", "false"}, Doc: doc}, func(text string, v *settingValues) string {
		b, reason := trueOrFalse(text)
		if reason == "" {
			*field(v) = b
		}
		return reason
	}}
}

func trueOrFalse(text string) (b bool, reason string) {
	switch {
	case strings.EqualFold(text, "true"):
		return true, ""
	case strings.EqualFold(text, "false"):
		return false, ""
	}
	return false, "must be true or false"
}

func choice(name, def string, values []string, set func(*settingValues, string), doc string) setting {
	return setting{SettingDoc{Name: name, Kind: KindString, Default: def, Values: values, Doc: doc}, func(text string, v *settingValues) string {
		if !slices.Contains(values, text) {
			return "must be one of " + strings.Join(values, ", ")
		}
		set(v, text)
		return ""
	}}
}

// list is one or more of values, separated by commas.
func list(name, def string, values []string, set func(*settingValues, func(string) bool), doc string) setting {
	return setting{SettingDoc{Name: name, Kind: KindList, Default: def, Values: values, Doc: doc}, func(text string, v *settingValues) string {
		items := strings.Split(text, ",")
		for i := range items {
			items[i] = strings.TrimSpace(items[i])
			if !slices.Contains(values, items[i]) {
				return "must be one or more of " + strings.Join(values, ", ")
			}
		}
		set(v, func(item string) bool { return slices.Contains(items, item) })
		return ""
	}}
}

// only is a setting of Kafka's that would silently not hold here at any value but
// one: the others are refused, and told what to use.
func only(name string, kind SettingKind, value, reason, doc string) setting {
	return setting{SettingDoc{Name: name, Kind: kind, Default: value, Values: []string{value}, Doc: doc}, func(text string, _ *settingValues) string {
		if text != value {
			return reason + " (only " + value + " is accepted)"
		}
		return ""
	}}
}

// unused is a number that tools send and that promises nothing: it is accepted and
// remembered.
func unused(name string, kind SettingKind, def, unit string, least, most int64, doc string) setting {
	return setting{SettingDoc{Name: name, Kind: kind, Default: def, Unit: unit, Doc: doc, NoEffect: true}, func(text string, _ *settingValues) string {
		_, reason := wholeNumber(text, least, most)
		return reason
	}}
}

func boolUnused(name, def, doc string) setting {
	return setting{SettingDoc{Name: name, Kind: KindBool, Default: def, Values: []string{"true", "false"}, Doc: doc, NoEffect: true}, func(text string, _ *settingValues) string {
		_, reason := trueOrFalse(text)
		return reason
	}}
}

// text is unused for a list of anything.
func text(name, doc string) setting {
	return setting{SettingDoc{Name: name, Kind: KindList, Doc: doc, NoEffect: true}, func(string, *settingValues) string { return "" }}
}

// unknownReason suggests what may have been meant.
func unknownReason(name string) string {
	best, least := "", len(name)/3+2 // further away it is no typing error
	for i := range settingTable {
		if d := editDistance(strings.ToLower(name), settingTable[i].Name); d < least {
			best, least = settingTable[i].Name, d
		}
	}
	if best == "" {
		return "there is no such topic setting"
	}
	return "there is no such topic setting; the nearest is " + best
}

// editDistance is Levenshtein's. Names are short; anything long is far away.
func editDistance(a, b string) int {
	if len(a) > 100 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
