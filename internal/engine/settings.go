package engine

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// ErrInvalidSetting is matched by *InvalidSettingError. Nothing was changed.
var ErrInvalidSetting = errors.New("embedlog: invalid setting")

// InvalidSettingError is a topic setting that is not known, has no sense, or would
// silently not hold here.
type InvalidSettingError struct {
	Name, Value string
	Reason      string
}

func (e *InvalidSettingError) Error() string {
	return fmt.Sprintf("setting %s=%q: %s", e.Name, e.Value, e.Reason)
}

// Is matches ErrInvalidSetting.
func (e *InvalidSettingError) Is(target error) bool { return target == ErrInvalidSetting }

// Settings are the settings of a topic under Kafka's names: what was set on the
// topic, over the defaults of the database, over those of the table in
// settings_table.go. They are a value and never change; the zero value is the
// table's defaults.
type Settings struct {
	explicit, defaults map[string]string
	values             *settingValues
}

// settingValues are the settings parsed. Durations are milliseconds here, as in
// the text.
type settingValues struct {
	compact, delete             bool
	retentionMs, retentionBytes int64
	segmentBytes, segmentMs     int64
	indexInterval               int64
	maxMessageBytes             int64
	compression                 string
	gzipLevel, lz4Level         int64
	zstdLevel                   int64
	appendTime                  bool
	minLagMs, maxLagMs          int64
	deleteRetentionMs           int64
	dirtyRatio                  float64
	level                       log.Level
	syncIntervalMs              int64
	maxBytes                    int64
	evict                       string
	zeroAhead, recycle          bool
}

var defaultValues = func() *settingValues {
	v := &settingValues{}
	for i := range settingTable {
		if row := &settingTable[i]; row.parse(row.Default, v) != "" {
			panic("engine: the default of " + row.Name + " does not hold")
		}
	}
	return v
}()

// ParseSettings makes the settings of a topic from what was set on it and the
// defaults of its database; either may be nil, and both are copied. Its error joins
// an *InvalidSettingError for each bad field.
func ParseSettings(explicit, defaults map[string]string) (Settings, error) {
	v := *defaultValues
	s := Settings{values: &v}
	var bad []error
	s.defaults, bad = parseInto(&v, defaults, bad)
	s.explicit, bad = parseInto(&v, explicit, bad)
	if len(bad) == 0 {
		bad = s.cross()
	}
	if len(bad) != 0 {
		return Settings{}, errors.Join(bad...)
	}
	return s, nil
}

// parseInto puts the settings of m into v, in the order of their names, so that
// the error of a given map is always the same.
func parseInto(v *settingValues, m map[string]string, bad []error) (map[string]string, []error) {
	trimmed := make(map[string]string, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		text := strings.TrimSpace(m[name]) // as Kafka does
		row := findSetting(name)
		if row == nil {
			bad = append(bad, &InvalidSettingError{name, m[name], unknownReason(name)})
			continue
		}
		if reason := row.parse(text, v); reason != "" {
			bad = append(bad, &InvalidSettingError{name, m[name], reason})
			continue
		}
		trimmed[name] = text
	}
	return trimmed, bad
}

// cross checks what two settings say together, and derives the size of segments.
func (s *Settings) cross() (bad []error) {
	v := s.values
	refuse := func(name, reason string) {
		text, _ := s.Get(name)
		bad = append(bad, &InvalidSettingError{name, text, reason})
	}
	if v.minLagMs > v.maxLagMs {
		refuse(settingMinLag, fmt.Sprintf("must not be above %s, which is %d", settingMaxLag, v.maxLagMs))
	}
	// Retention works by whole segments, and the active one never goes: a cap needs
	// several below it to be of use.
	if _, explicit := s.explicit[settingSegmentBytes]; v.maxBytes > 0 && (v.segmentBytes > v.maxBytes/2 || !s.isSet(settingSegmentBytes)) {
		if explicit {
			refuse(settingMaxBytes, fmt.Sprintf("must be at least twice %s, which is %d", settingSegmentBytes, v.segmentBytes))
		}
		v.segmentBytes = min(v.segmentBytes, v.maxBytes/8)
	}
	if _, explicit := s.Get(settingEvict); explicit && v.evict == "true" && !v.delete {
		refuse(settingEvict, fmt.Sprintf("data of a topic whose %s is without delete is never deleted for room", settingCleanup))
	}
	return bad
}

// isSet says whether the topic or the database says anything about a setting.
func (s Settings) isSet(name string) bool {
	_, on := s.explicit[name]
	_, by := s.defaults[name]
	return on || by
}

func (s Settings) v() *settingValues {
	if s.values == nil {
		return defaultValues
	}
	return s.values
}

// Get returns the value in force as text, and whether it was set on the topic
// itself. It is empty for a name that is not known.
func (s Settings) Get(name string) (value string, explicit bool) {
	if value, ok := s.explicit[name]; ok {
		return value, true
	}
	if name == settingSegmentBytes {
		return strconv.FormatInt(s.v().segmentBytes, 10), false // it may be derived
	}
	if value, ok := s.defaults[name]; ok {
		return value, false
	}
	if row := findSetting(name); row != nil {
		return row.Default, false
	}
	return "", false
}

// Default returns what the topic would have if it said nothing itself, and whether
// the database says so; otherwise it is the table's default.
func (s Settings) Default(name string) (value string, said bool) {
	if value, ok := s.defaults[name]; ok {
		return value, true
	}
	if row := findSetting(name); row != nil {
		return row.Default, false
	}
	return "", false
}

// Explicit returns a copy of what was set on the topic itself.
func (s Settings) Explicit() map[string]string {
	if s.explicit == nil {
		return map[string]string{}
	}
	return maps.Clone(s.explicit)
}

// Deletes says whether old data is deleted. (cleanup.policy contains delete)
func (s Settings) Deletes() bool { return s.v().delete }

// Compacts says whether the last record of each key is kept. (cleanup.policy contains compact)
func (s Settings) Compacts() bool { return s.v().compact }

// Retention is how old data may become; negative is for ever. (retention.ms)
func (s Settings) Retention() time.Duration { return millis(s.v().retentionMs) }

// RetentionBytes is how large a partition may become before its oldest segments
// go; negative is without bound. (retention.bytes)
func (s Settings) RetentionBytes() int64 { return s.v().retentionBytes }

// MinCompactionLag is how long a record stays as it was appended. (min.compaction.lag.ms)
func (s Settings) MinCompactionLag() time.Duration { return millis(s.v().minLagMs) }

// MaxCompactionLag is how old the oldest record that was not compacted yet may
// become before the partition is compacted whatever its dirty ratio. (max.compaction.lag.ms)
func (s Settings) MaxCompactionLag() time.Duration { return millis(s.v().maxLagMs) }

// DeleteRetention is how long a tombstone can be seen. (delete.retention.ms)
func (s Settings) DeleteRetention() time.Duration { return millis(s.v().deleteRetentionMs) }

// MinDirtyRatio is what part of a partition must be dirty for a compaction to be
// worth its while. (min.cleanable.dirty.ratio)
func (s Settings) MinDirtyRatio() float64 { return s.v().dirtyRatio }

// Evicts says whether the oldest data may be deleted before its time when room is
// needed. (embedlog.evict)
func (s Settings) Evicts() bool {
	v := s.v()
	return v.delete && (v.evict == "true" || v.evict == "auto" && (v.retentionMs >= 0 || v.retentionBytes >= 0))
}

// MaxBytes is the hard cap of one partition, allocated bytes; 0 is none. (embedlog.max.bytes)
func (s Settings) MaxBytes() int64 { return max(s.v().maxBytes, 0) }

// Durability is when an append is acknowledged. (embedlog.durability)
func (s Settings) Durability() log.Level { return s.v().level }

// Partition is what the settings say to package partition.
func (s Settings) Partition() partition.Config {
	v := s.v()
	age := v.segmentMs
	if v.compact {
		age = min(age, v.maxLagMs) // only closed segments are compacted; Kafka does the same
	}
	c := partition.Config{
		Log: log.Config{
			Level:              v.level,
			SyncInterval:       millis(v.syncIntervalMs),
			SegmentBytes:       v.segmentBytes,
			SegmentAge:         millis(age),
			IndexIntervalBytes: int(max(v.indexInterval, 1)), // 0 would be the default there
			CapBytes:           s.MaxBytes(),
			NoZeroing:          !v.zeroAhead,
			Recycle:            v.recycle,
		},
		MaxBatchBytes: int(v.maxMessageBytes),
		AppendTime:    v.appendTime,
		RequireKeys:   v.compact,
	}
	c.Compression, c.CompressionLevel, c.Recompress = v.codec()
	return c
}

// codec says how batches are stored. Without recompress a batch stays as its
// producer made it.
func (v *settingValues) codec() (c compress.Codec, level int, recompress bool) {
	switch v.compression {
	case "producer":
		return compress.None, 0, false
	case "uncompressed":
		return compress.None, 0, true
	case "gzip":
		return compress.Gzip, int(max(v.gzipLevel, 0)), true // -1 is the default, 0 here
	case "snappy":
		return compress.Snappy, 0, true
	case "lz4":
		if v.lz4Level == lz4DefaultLevel {
			return compress.LZ4, 0, true // Kafka's default level is its fast compressor, too
		}
		return compress.LZ4, int(v.lz4Level), true
	default:
		return compress.Zstd, int(max(v.zstdLevel, 1)), true
	}
}

// millis is a number of milliseconds, the largest duration there is if it is more:
// Kafka's "for ever" is 2^63-1.
func millis(ms int64) time.Duration {
	if ms > math.MaxInt64/int64(time.Millisecond) {
		return math.MaxInt64
	}
	return time.Duration(ms) * time.Millisecond
}
