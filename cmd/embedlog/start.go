package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/internal/sock"
)

// start is where to begin in each partition: what -o says.
type start struct {
	kind   startKind
	offset int64     // startAbsolute; startRelative: from the start, or if negative from the end
	time   time.Time // startTime
}

type startKind uint8

const (
	startEnd startKind = iota
	startBeginning
	startAbsolute
	startRelative
	startTime
)

const startForms = "start, end, N, +N (after the start), -N (before the end) or @TIME"

// parseStart reads the forms that kcat and rpk taught.
func parseStart(s string) (start, error) {
	switch s {
	case "", "end", "latest":
		return start{kind: startEnd}, nil
	case "start", "beginning", "earliest":
		return start{kind: startBeginning}, nil
	}
	if at, ok := strings.CutPrefix(s, "@"); ok {
		t, err := parseTime(at)
		return start{kind: startTime, time: t}, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return start{}, usagef("an offset is %s, not %q", startForms, s)
	}
	if s[0] == '+' || s[0] == '-' {
		return start{kind: startRelative, offset: n}, nil
	}
	return start{kind: startAbsolute, offset: n}, nil
}

// timeForms are tried in turn; those without a zone are local time.
var timeForms = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", time.DateTime, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly,
}

// parseTime reads a date, a date with a time, milliseconds since 1970, or how long
// ago, as in -90m.
func parseTime(s string) (time.Time, error) {
	if ago, ok := strings.CutPrefix(s, "-"); ok {
		d, err := parseDuration(ago)
		return time.Now().Add(-d), err
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.UnixMilli(ms), nil
	}
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("a time is 2026-11-22, 2026-11-22T15:04:05Z, milliseconds since 1970 or -90m (ago), not %q", s)
}

// parseDuration reads Go's form (1h30m) and ISO 8601's (PT1H30M, P1DT12H), which
// Kafka's tools take.
func parseDuration(s string) (time.Duration, error) {
	bad := usagef("a duration is 90m, 1h30m, P7D or PT1H30M, not %q", s)
	iso, ok := strings.CutPrefix(s, "P")
	if !ok {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return 0, bad
		}
		return d, nil
	}
	days, clock, hasClock := strings.Cut(iso, "T")
	var total time.Duration
	if days != "" {
		n, ok := strings.CutSuffix(days, "D")
		count, err := strconv.ParseInt(n, 10, 32)
		if !ok || err != nil || count < 0 || count > 100_000 {
			return 0, bad
		}
		total = time.Duration(count) * 24 * time.Hour
	}
	if clock != "" {
		d, err := time.ParseDuration(strings.ToLower(clock))
		if err != nil || d < 0 {
			return 0, bad
		}
		total += d
	}
	if iso == "" || hasClock && clock == "" {
		return 0, bad
	}
	return total, nil
}

// resolve asks for the offset in each partition of the topic. A relative one that
// lies outside of the log is moved to its nearest end.
func (s start) resolve(ctx context.Context, c *client, topic sock.Topic) (map[int32]int64, error) {
	at := make(map[int32]int64, len(topic.PartitionList))
	if s.kind == startTime {
		found, err := call[[]sock.Position](ctx, c, sock.OpListOffsets,
			sock.ListOffsets{Topic: topic.Topic, At: sock.AtTime, Time: s.time})
		for _, p := range found {
			at[p.Partition] = p.Offset
		}
		return at, err
	}
	for _, p := range topic.PartitionList {
		var offset int64
		switch {
		case s.kind == startEnd:
			offset = p.HighWatermark
		case s.kind == startBeginning:
			offset = p.LogStart
		case s.kind == startAbsolute:
			at[p.Partition] = s.offset // what was named is not moved: an error is better
			continue
		case s.offset < 0:
			offset = p.HighWatermark + s.offset
		default:
			offset = p.LogStart + s.offset
		}
		at[p.Partition] = min(max(offset, p.LogStart), p.HighWatermark)
	}
	return at, nil
}
