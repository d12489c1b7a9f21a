package embedlog

import (
	"fmt"
	"time"

	"github.com/x/embedlog/internal/engine"
)

// Info says what a database is: its Dir, Format, ClusterID, DirectoryID and NodeID,
// and in Topics and Deleting the Name and ID of each topic, whose files are in
// topics/<ID>.
type Info = engine.Info

// Info says what the database is.
func (db *DB) Info() Info { return db.engine.Info() }

// TopicInfo is a topic as it is at a moment.
type TopicInfo struct {
	Name     string
	ID       TopicID
	Internal bool // the database keeps it for itself
	// Settings are all settings under Kafka's names, in the order of the documentation.
	Settings   []Setting
	Partitions []PartitionInfo // by number
}

// Setting is one setting of a topic.
type Setting struct {
	Name, Value string
	Explicit    bool // set on the topic; otherwise the database's, or the default
}

// PartitionInfo is a partition as it is at a moment:
//
//	LogStart <= LastStable <= HighWatermark <= LogEnd
type PartitionInfo struct {
	Partition int32
	// LogStart is the first offset there is, LogEnd the next to be given.
	LogStart, LogEnd int64
	// HighWatermark is the offset below which records are acknowledged, LastStable that
	// below which no transaction is open.
	HighWatermark, LastStable int64
	// DurableOffset is the offset below which all records survive a power cut.
	DurableOffset int64
	LeaderEpoch   int32
	// Bytes is what the partition takes on the disk, with what is laid ahead of the
	// writer.
	Bytes int64
	// Err is why the partition takes no records: nil, or an error that matches
	// ErrCorrupt or ErrStorageFailed.
	Err error
	// Of a database that is replicated: Leader is the node that leads the partition, as
	// far as this one knows, -1 where it does not; Replicas are the nodes that have it, the
	// preferred leader first.
	Leader   int32
	Replicas []int32
	// Elsewhere says that this node has no replica: it does not know offsets and sizes, which are 0 then.
	// Topic.ListOffsets asks the leader.
	Elsewhere bool
	// InSync are those of them that have what was acknowledged a short while ago. Only the
	// leader knows; it is nil elsewhere.
	InSync []int32
}

// Describe says how the topic is now.
func (t *Topic) Describe() (TopicInfo, error) {
	top, err := t.current()
	if err != nil {
		return TopicInfo{}, fmt.Errorf("describe topic %s: %w", t.name, err)
	}
	return describe(top), nil
}

// Topics describes all topics, internal ones too, by name.
func (db *DB) Topics() []TopicInfo {
	list := db.engine.Topics()
	out := make([]TopicInfo, len(list))
	for i, top := range list {
		out[i] = describe(top)
	}
	return out
}

func describe(top *engine.Topic) TopicInfo {
	info := TopicInfo{Name: top.Name(), ID: top.ID(), Internal: top.Internal(), Partitions: partitionInfos(top)}
	settings := top.Settings()
	for _, doc := range engine.SettingDocs() {
		value, explicit := settings.Get(doc.Name)
		info.Settings = append(info.Settings, Setting{doc.Name, value, explicit})
	}
	return info
}

func partitionInfos(top *engine.Topic) []PartitionInfo {
	list := make([]PartitionInfo, len(top.Partitions()))
	for i, p := range top.Partitions() {
		// In this order, each is at most what is read after it.
		list[i] = PartitionInfo{
			Partition: p.ID(), LogStart: p.LogStart(), LastStable: p.LastStable(), HighWatermark: p.HighWatermark(), LogEnd: p.LogEnd(),
			DurableOffset: p.Log().DurableOffset(), LeaderEpoch: p.LeaderEpoch(), Bytes: p.Log().AllocatedBytes(), Err: p.Err(),
			Replicas: top.Replicas(p.ID()),
		}
		list[i].Leader, _ = p.Leader()
		if p.Elsewhere() {
			// It may come to have one between the lines above.
			list[i] = PartitionInfo{Partition: p.ID(), LeaderEpoch: p.LeaderEpoch(), Leader: list[i].Leader, Replicas: list[i].Replicas, Elsewhere: true}
		}
		if list[i].Replicas != nil && p.Leads() {
			list[i].InSync = p.Status().InSync
		}
	}
	return list
}

// Stats are the counters of a database at a moment. Offsets count for ever: the
// difference of two LogEnd is what was written in between.
type Stats struct {
	Time       time.Time
	Partitions int
	// Records is how many offsets lie between log start and high watermark; in a
	// compacted topic there are fewer records. What is elsewhere does not count.
	Records int64
	// Bytes is what all partitions take on the disk.
	Bytes int64
	// Failed is how many partitions take no records: see PartitionInfo.Err.
	Failed int
	// Maintenance is what retention, compaction and Options.MaxBytes did so far.
	Maintenance MaintenanceStats
	Topics      []TopicStats // by name
}

// MaintenanceStats count what is done in the background since the database was opened.
type MaintenanceStats = engine.MaintenanceStats

// TopicStats are those of one topic.
type TopicStats struct {
	Name       string
	ID         TopicID
	Internal   bool
	Partitions []PartitionInfo
}

// Stats reads the counters. It takes no lock that a writer waits for.
func (db *DB) Stats() Stats {
	s := Stats{Time: db.engine.Now(), Maintenance: db.engine.MaintenanceStats()}
	for _, top := range db.engine.Topics() {
		t := TopicStats{Name: top.Name(), ID: top.ID(), Internal: top.Internal(), Partitions: partitionInfos(top)}
		for i := range t.Partitions {
			p := &t.Partitions[i]
			s.Partitions++
			s.Records += p.HighWatermark - p.LogStart
			s.Bytes += p.Bytes
			if p.Err != nil {
				s.Failed++
			}
		}
		s.Topics = append(s.Topics, t)
	}
	return s
}
