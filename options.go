package embedlog

import (
	"errors"
	"log/slog"
	"maps"
	"math"
	"strconv"
	"time"

	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/internal/engine"
)

// Options are what Open takes; nil is the defaults. They are copied.
type Options struct {
	// Durability and SyncInterval are those of topics that say nothing else. Zero
	// means Durable, and 100 ms for those that are Interval.
	Durability   Durability
	SyncInterval time.Duration
	// TopicDefaults are the settings of topics that say nothing else.
	TopicDefaults TopicConfig
	// AutoCreateTopics makes a topic that is not there when it is asked for by name.
	AutoCreateTopics bool
	// LockTimeout is how long Open waits for a directory that somebody else has open.
	// Zero means that it does not.
	LockTimeout time.Duration
	// OpenFiles bounds the open files. Zero means 256.
	OpenFiles int
	// MaxBytes bounds what the database takes on the disk: the oldest records of the
	// topics that allow it are deleted first, and where none does, producing fails
	// with ErrNoSpace. Zero means no bound; the smallest is 4 MiB. In a cluster it is of this
	// node's directory, and nodes should have the same: leaders decide what is deleted, so a
	// follower with less room than its leader falls behind, and has no part in acknowledging, until
	// there is room. The votes' file, raft.db, counts, and grows over the bound where it must.
	MaxBytes int64
	// Logger is told what happens in the background. Nil is silent.
	Logger *slog.Logger
	// Hooks are called for what happens in the foreground. Nil costs nothing.
	Hooks *Hooks
	// Socket lets the command line reach the database while it is open, through
	// DIR/sock, which only the directory's owner may use.
	Socket bool
	// Now is the wall clock. Nil is time.Now.
	Now func() time.Time
	// OffsetsRetention is how long the offsets of a group without members are kept:
	// only time during which the database is open counts, all runs together.
	// Zero means 7 days, negative for ever.
	OffsetsRetention time.Duration
	// GroupInitialDelay is how long a group of Kafka's classic protocol without members
	// waits for more of them before its first generation. Zero means 100 ms, negative not
	// at all. (group.initial.rebalance.delay.ms)
	GroupInitialDelay time.Duration
	// GroupMinSessionTimeout and GroupMaxSessionTimeout bound the session timeouts that
	// members of the classic protocol may ask for. Zero means 6 s and 30 min, or the least
	// where that is more. (group.min.session.timeout.ms, group.max.session.timeout.ms)
	GroupMinSessionTimeout, GroupMaxSessionTimeout time.Duration
	// GroupMaxSize is how many members a group may have, of all protocols and of this
	// process. Zero means 10,000. (group.max.size)
	GroupMaxSize int
	// MaintenanceInterval is how often retention, compaction and MaxBytes are looked
	// after. Zero means 30 s, negative never by itself.
	MaintenanceInterval time.Duration
	// Replication keeps copies of the database on other nodes: a *raftrepl.Node. It is for
	// one DB, and closed with it. A directory that was used without becomes the first node
	// of a cluster, with all that it holds; then it cannot be opened without any more. Nil
	// is no replication, and costs nothing.
	Replication Replication
	// ReplicationFactor is how many nodes have a partition where its topic says nothing.
	// Zero means 3, or as many as there are nodes. (default.replication.factor)
	ReplicationFactor int
	// PreferredLeaders is for how long a partition's preferred leader, the first of its replicas, has
	// to be in sync before who leads instead gives it the lead, one partition a second. Zero
	// is 30 s, negative never but by Cluster.ElectPreferred. (auto.leader.rebalance.enable)
	PreferredLeaders time.Duration
}

// Cleanup says what becomes of old records.
type Cleanup uint8

const (
	defaultCleanup Cleanup = iota
	// Delete deletes what is past Retention or RetentionBytes. This is the default.
	Delete
	// Compact keeps the last record of each key, for ever: retention does not count.
	Compact
	// CompactAndDelete does both.
	CompactAndDelete
)

var cleanupNames = [...]string{defaultCleanup: "", Delete: "delete", Compact: "compact", CompactAndDelete: "compact,delete"}

// String is the value of cleanup.policy; empty for the zero value.
func (c Cleanup) String() string {
	if int(c) < len(cleanupNames) {
		return cleanupNames[c]
	}
	return "Cleanup(" + strconv.Itoa(int(c)) + ")"
}

// TopicConfig are the settings of a topic; nil is the defaults. A zero field is
// the default of the database, and where nothing is said there, the one in the
// comment; negative is off. They are copied.
type TopicConfig struct {
	// Partitions is how many the topic has. Zero means 1. More can be added later.
	Partitions int
	// ReplicationFactor is how many nodes have each partition. Zero means
	// Options.ReplicationFactor. It counts when the topic is created;
	// Cluster.SetReplicationFactor changes it.
	ReplicationFactor int
	// Durability is when a record is acknowledged. (embedlog.durability)
	Durability Durability
	// SyncInterval is within what time Interval syncs. Zero means 100 ms. (embedlog.sync.interval.ms)
	SyncInterval time.Duration
	// Cleanup is what becomes of old records. Zero means Delete. (cleanup.policy)
	Cleanup Cleanup
	// Retention is how long records are kept at least. Zero means 7 days, negative for
	// ever. (retention.ms)
	Retention time.Duration
	// RetentionBytes is how much of each partition is kept at least. Zero and negative
	// mean all. (retention.bytes)
	RetentionBytes int64
	// MaxBytes is the most that a partition may take on the disk: an append that would
	// pass it fails with ErrNoSpace. Zero means no bound. (embedlog.max.bytes)
	MaxBytes int64
	// MaxRecordBytes bounds a record, and each batch of records, as it is stored. Zero
	// means 1 MiB. (max.message.bytes)
	MaxRecordBytes int
	// SegmentBytes is the size of the files that retention deletes. Zero means 1 GiB. (segment.bytes)
	SegmentBytes int64
	// SegmentAge is after what time a file that holds records is closed. Zero means 7
	// days. (segment.ms)
	SegmentAge time.Duration
	// Compression is what records are stored with. Zero means as their producer sent
	// them. (compression.type)
	Compression compress.Codec
	// AppendTime gives every record the time of its append instead of its own, so that
	// times never go back. (message.timestamp.type)
	AppendTime bool
	// MinCompactionLag and MaxCompactionLag bound when a record may be and must be
	// compacted. Zero means at once, and at no time. (min.compaction.lag.ms, max.compaction.lag.ms)
	MinCompactionLag, MaxCompactionLag time.Duration
	// DeleteRetention is how long compaction keeps a tombstone. Zero means 24 hours. (delete.retention.ms)
	DeleteRetention time.Duration
	// MinDirtyRatio is how much of a partition must be new before it is compacted, 0
	// to 1. Zero means 0.5. (min.cleanable.dirty.ratio)
	MinDirtyRatio float64
	// Settings are any others under Kafka's names, or ours, which begin with
	// "embedlog.". A name that a field stands for may be here instead of there.
	Settings map[string]string
}

// settings are the fields that say something, under Kafka's names, and what is
// wrong with them as far as a name and a text do not show it.
func (c *TopicConfig) settings() (map[string]string, []error) {
	set := make(map[string]string)
	if c == nil {
		return set, nil
	}
	maps.Copy(set, c.Settings)
	var bad []error
	invalid := func(name, value, reason string) {
		bad = append(bad, &InvalidSettingError{Name: name, Value: value, Reason: reason})
	}
	put := func(name, value string) {
		if old, ok := set[name]; ok && old != value {
			invalid(name, value, "Settings says "+strconv.Quote(old)+": say it once")
		}
		set[name] = value
	}
	number := func(name string, n int64) {
		if n != 0 {
			put(name, strconv.FormatInt(max(n, -1), 10))
		}
	}
	duration := func(name string, d time.Duration) {
		switch {
		case d < 0:
			put(name, "-1")
		case d > 0 && d < time.Millisecond:
			invalid(name, d.String(), "must be whole milliseconds")
		case d > 0:
			put(name, strconv.FormatInt(d.Milliseconds(), 10))
		}
	}
	if c.Partitions < 0 {
		invalid("partitions", strconv.Itoa(c.Partitions), "must be 1 or more")
	}
	if c.ReplicationFactor < 0 {
		invalid("replication.factor", strconv.Itoa(c.ReplicationFactor), "must be 1 or more")
	}
	if int(c.Durability) >= len(durabilityNames) {
		invalid("embedlog.durability", c.Durability.String(), "must be Durable, Interval or OS")
	} else if c.Durability != unsetDurability {
		put("embedlog.durability", c.Durability.String())
	}
	duration("embedlog.sync.interval.ms", c.SyncInterval)
	if int(c.Cleanup) >= len(cleanupNames) {
		invalid("cleanup.policy", c.Cleanup.String(), "must be Delete, Compact or CompactAndDelete")
	} else if c.Cleanup != defaultCleanup {
		put("cleanup.policy", c.Cleanup.String())
	}
	duration("retention.ms", c.Retention)
	number("retention.bytes", c.RetentionBytes)
	number("embedlog.max.bytes", c.MaxBytes)
	number("max.message.bytes", int64(c.MaxRecordBytes))
	number("segment.bytes", c.SegmentBytes)
	duration("segment.ms", c.SegmentAge)
	if !c.Compression.Valid() {
		invalid("compression.type", c.Compression.String(), "is no codec")
	} else if c.Compression != compress.None {
		put("compression.type", c.Compression.String())
	}
	if c.AppendTime {
		put("message.timestamp.type", "LogAppendTime")
	}
	duration("min.compaction.lag.ms", c.MinCompactionLag)
	duration("max.compaction.lag.ms", c.MaxCompactionLag)
	duration("delete.retention.ms", c.DeleteRetention)
	if c.MinDirtyRatio != 0 || math.IsNaN(c.MinDirtyRatio) {
		put("min.cleanable.dirty.ratio", strconv.FormatFloat(c.MinDirtyRatio, 'g', -1, 64))
	}
	return set, bad
}

// maxGroupTimeout is the longest time in milliseconds that Kafka's settings can say.
const maxGroupTimeout = math.MaxInt32 * time.Millisecond

// Validate says what is wrong with the options, everything at once, as Open would
// before it looks at the directory: *InvalidSettingError, joined.
func (o *Options) Validate() error {
	_, err := o.engine()
	return err
}

// engine turns the options into those of the engine, and reports every bad one.
func (o *Options) engine() (*engine.Options, error) {
	if o == nil {
		o = &Options{}
	}
	var bad []error
	invalid := func(name, value, reason string) {
		bad = append(bad, &InvalidSettingError{Name: "Options." + name, Value: value, Reason: reason})
	}
	defaults, wrong := o.TopicDefaults.settings()
	bad = append(bad, wrong...)
	own, wrong := (&TopicConfig{Durability: o.Durability, SyncInterval: o.SyncInterval}).settings()
	bad = append(bad, wrong...)
	for name, value := range own {
		if _, ok := defaults[name]; !ok {
			defaults[name] = value
		}
	}
	if o.LockTimeout < 0 {
		invalid("LockTimeout", o.LockTimeout.String(), "must not be negative")
	}
	if o.OpenFiles < 0 {
		invalid("OpenFiles", strconv.Itoa(o.OpenFiles), "must not be negative")
	}
	if o.MaxBytes != 0 && o.MaxBytes < engine.MinMaxBytes {
		invalid("MaxBytes", strconv.FormatInt(o.MaxBytes, 10), "must be 0, which is no bound, or at least "+strconv.Itoa(engine.MinMaxBytes)+" (4 MiB)")
	}
	if o.GroupInitialDelay > maxGroupTimeout {
		invalid("GroupInitialDelay", o.GroupInitialDelay.String(), "must be at most "+maxGroupTimeout.String())
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"GroupMinSessionTimeout", o.GroupMinSessionTimeout}, {"GroupMaxSessionTimeout", o.GroupMaxSessionTimeout}} {
		if f.d < 0 || f.d > 0 && f.d < time.Millisecond || f.d > maxGroupTimeout {
			invalid(f.name, f.d.String(), "must be 0, or between 1 ms and "+maxGroupTimeout.String())
		}
	}
	least := o.GroupMinSessionTimeout
	if least == 0 {
		least = engine.DefaultGroupMinSessionTimeout
	}
	if o.GroupMaxSessionTimeout > 0 && o.GroupMaxSessionTimeout < least {
		invalid("GroupMaxSessionTimeout", o.GroupMaxSessionTimeout.String(), "is less than GroupMinSessionTimeout, "+least.String()+": nobody could join")
	}
	if o.GroupMaxSize < 0 || o.GroupMaxSize > math.MaxInt32 {
		invalid("GroupMaxSize", strconv.Itoa(o.GroupMaxSize), "must be between 0 and 2147483647")
	}
	if o.ReplicationFactor < 0 {
		invalid("ReplicationFactor", strconv.Itoa(o.ReplicationFactor), "must not be negative")
	}
	if o.TopicDefaults.ReplicationFactor != 0 {
		invalid("TopicDefaults.ReplicationFactor", strconv.Itoa(o.TopicDefaults.ReplicationFactor), "is Options.ReplicationFactor")
	}
	if _, err := engine.ParseSettings(defaults, nil); err != nil {
		bad = append(bad, err)
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	return &engine.Options{
		Logger: o.Logger, Now: o.Now, Hooks: o.Hooks,
		LockTimeout: o.LockTimeout, OpenFiles: o.OpenFiles, MaxBytes: o.MaxBytes,
		Defaults: defaults, OffsetsRetention: o.OffsetsRetention, MaintenanceInterval: o.MaintenanceInterval,
		GroupInitialDelay: o.GroupInitialDelay, GroupMinSessionTimeout: o.GroupMinSessionTimeout,
		GroupMaxSessionTimeout: o.GroupMaxSessionTimeout, GroupMaxSize: o.GroupMaxSize,
		Cluster: o.Replication, ReplicationFactor: o.ReplicationFactor, PreferredLeaders: o.PreferredLeaders,
	}, nil
}
