package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/partition"
)

// The settings of a share group, under Kafka's names for those of a group. (KIP-932, KIP-1240)
const (
	shareSettingReset     = "share.auto.offset.reset"
	shareSettingIsolation = "share.isolation.level"
	shareSettingLock      = "share.record.lock.duration.ms"
	shareSettingLimit     = "share.delivery.count.limit"
	shareSettingRecords   = "share.partition.max.record.locks"
	shareSettingSession   = "share.session.timeout.ms"
	shareSettingHeartbeat = "share.heartbeat.interval.ms"
	shareSettingRenew     = "share.renew.acknowledge.enable"
)

// shareSettings are those of one group, parsed. It is never changed.
type shareSettings struct {
	explicit map[string]string

	reset      shareReset
	isolation  partition.Isolation
	lock       time.Duration
	limit      int16 // deliveries
	records    int64 // in a window
	session    time.Duration
	heartbeat  time.Duration
	renewable  bool
	lockMillis int32
}

// shareReset is where a share partition begins.
type shareReset struct {
	earliest bool
	ago      time.Duration // zero: at the end
}

// ShareSettingDoc is about one setting of share groups.
type ShareSettingDoc struct {
	Name, Default, Doc string
	Kind               SettingKind
	parse              func(s *shareSettings, value string) error
}

var shareSettingTable = []ShareSettingDoc{
	{shareSettingReset, "latest", "Where a group begins in a partition that it has not read: earliest, latest, or by_duration: and an ISO 8601 duration.", KindString,
		func(s *shareSettings, v string) (err error) { s.reset, err = parseShareReset(v); return err }},
	{shareSettingIsolation, "read_uncommitted", "Whether records of transactions are delivered that are not committed: read_uncommitted or read_committed.", KindString,
		func(s *shareSettings, v string) error {
			switch v {
			case "read_committed":
				s.isolation = partition.ReadCommitted
			case "read_uncommitted":
				s.isolation = partition.ReadUncommitted
			default:
				return errors.New("want read_uncommitted or read_committed")
			}
			return nil
		}},
	{shareSettingLock, "30000", "How long a record is a member's before it is delivered again.", KindInt,
		inRange(1000, 3_600_000, func(s *shareSettings, n int64) { s.lock, s.lockMillis = time.Duration(n)*time.Millisecond, int32(n) })},
	{shareSettingLimit, "5", "How often a record is delivered at most.", KindInt,
		inRange(2, 10, func(s *shareSettings, n int64) { s.limit = int16(n) })},
	{shareSettingRecords, "2000", "How many records of a partition may be under way at once.", KindInt,
		inRange(100, 10_000, func(s *shareSettings, n int64) { s.records = n })},
	{shareSettingSession, "45000", "How long a member may be silent.", KindInt,
		inRange(1000, 3_600_000, func(s *shareSettings, n int64) { s.session = time.Duration(n) * time.Millisecond })},
	{shareSettingHeartbeat, "5000", "How often a member is to send a heartbeat.", KindInt,
		inRange(100, 3_600_000, func(s *shareSettings, n int64) { s.heartbeat = time.Duration(n) * time.Millisecond })},
	{shareSettingRenew, "true", "Whether a member may begin the lock of a record anew.", KindBool,
		func(s *shareSettings, v string) error {
			s.renewable = v == "true"
			if v != "true" && v != "false" {
				return errors.New("want true or false")
			}
			return nil
		}},
}

func inRange(low, high int64, set func(s *shareSettings, n int64)) func(*shareSettings, string) error {
	return func(s *shareSettings, v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < low || n > high {
			return fmt.Errorf("want a whole number from %d to %d", low, high)
		}
		set(s, n)
		return nil
	}
}

// ShareSettingDocs are the settings of share groups, by name.
func ShareSettingDocs() []ShareSettingDoc {
	list := slices.Clone(shareSettingTable)
	slices.SortFunc(list, func(a, b ShareSettingDoc) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// newShareSettings reads settings; all that are bad are reported at once, as
// *InvalidSettingError.
func newShareSettings(explicit map[string]string) (*shareSettings, error) {
	s := &shareSettings{explicit: map[string]string{}}
	maps.Copy(s.explicit, explicit)
	var bad []error
	known := 0
	for i := range shareSettingTable {
		d := &shareSettingTable[i]
		value, said := explicit[d.Name]
		if !said {
			value = d.Default
		} else {
			known++
		}
		if err := d.parse(s, value); err != nil {
			bad = append(bad, &InvalidSettingError{Name: d.Name, Value: value, Reason: err.Error()})
		}
	}
	if known < len(explicit) {
		for _, name := range slices.Sorted(maps.Keys(explicit)) {
			if !slices.ContainsFunc(shareSettingTable, func(d ShareSettingDoc) bool { return d.Name == name }) {
				bad = append(bad, &InvalidSettingError{Name: name, Value: explicit[name], Reason: "there is no setting of that name for groups"})
			}
		}
	}
	if bad == nil && s.heartbeat >= s.session {
		bad = append(bad, &InvalidSettingError{Name: shareSettingHeartbeat, Value: s.heartbeat.String(), Reason: "it must be less than " + shareSettingSession})
	}
	return s, errors.Join(bad...)
}

// defaultShareSettings are those of a group that says nothing.
var defaultShareSettings = func() *shareSettings {
	s, err := newShareSettings(nil)
	if err != nil {
		panic("engine: default settings of share groups: " + err.Error())
	}
	return s
}()

func parseShareReset(v string) (r shareReset, err error) {
	switch v {
	case "earliest":
		return shareReset{earliest: true}, nil
	case "latest":
		return shareReset{}, nil
	}
	text, ok := strings.CutPrefix(v, "by_duration:")
	if !ok {
		return r, errors.New("want earliest, latest or by_duration: and an ISO 8601 duration")
	}
	r.ago, err = parseISODuration(text)
	return r, err
}

// parseISODuration reads PnDTnHnMnS, each part once at most, the last with a fraction.
// (java.time.Duration, without signs)
func parseISODuration(v string) (total time.Duration, err error) {
	bad := fmt.Errorf("%.64q is not a duration such as P1DT2H30M", v)
	rest, ok := strings.CutPrefix(v, "P")
	if !ok {
		return 0, bad
	}
	units := []struct {
		letter byte
		unit   time.Duration
	}{{'D', 24 * time.Hour}, {'H', time.Hour}, {'M', time.Minute}, {'S', time.Second}}
	at, parts, inTime := 0, 0, false
	for rest != "" {
		if rest[0] == 'T' {
			if inTime {
				return 0, bad
			}
			inTime, rest = true, rest[1:]
			at = max(at, 1)
			if rest == "" {
				return 0, bad
			}
			continue
		}
		end := strings.IndexAny(rest, "DHMS")
		if end <= 0 {
			return 0, bad
		}
		i := at
		for i < len(units) && units[i].letter != rest[end] {
			i++
		}
		if i == len(units) || (i > 0) != inTime {
			return 0, bad
		}
		number := rest[:end]
		if strings.Trim(number, "0123456789") != "" && (units[i].letter != 'S' || strings.Trim(strings.Replace(number, ".", "", 1), "0123456789") != "") {
			return 0, bad
		}
		n, err := strconv.ParseFloat(number, 64)
		part := n * float64(units[i].unit)
		if err != nil || part > float64(1<<62) || float64(total)+part > float64(1<<62) {
			return 0, bad
		}
		total += time.Duration(part)
		at, rest, parts = i+1, rest[end+1:], parts+1
	}
	if parts == 0 || total <= 0 {
		return 0, bad
	}
	return total, nil
}
