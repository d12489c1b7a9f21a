package engine

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// The records of __share_group_state. Those of share partitions are in Kafka's encoding
// (https://github.com/apache/kafka/tree/trunk/share-coordinator/src/main/resources/common/message),
// integers, varints and tagged fields as in __consumer_offsets.
//
//	ShareSnapshotKey    2 version: 0   2 length  group   16 topic id   4 partition
//	ShareSnapshotValue  2 version: 0   4 snapshot epoch   4 state epoch   4 leader epoch   8 start offset
//	                    8 created   8 written, milliseconds since 1970
//	                    uvarint number of batches + 1; of each, ascending:
//	                        8 first offset   8 last offset   1 state (0 available, 2 accepted, 4 archived)
//	                        2 delivery count   uvarint number of tagged fields: 0
//	                    uvarint number of tagged fields ...
//	                    tag 0: 4 offsets from the start offset on that are done
//	settings key, ours  2 version: 10000   2 length  group
//	settings value      2 version: 0   uvarint count; of each, names ascending: uvarint length name, uvarint length value
//
// Kafka writes changes (ShareUpdate, key version 1) between snapshots; here each record is a
// snapshot, so that compaction may leave the last one alone. A record without a value is a tombstone.
const (
	shareSnapshotKeyVersion = 0
	shareSettingsKeyVersion = 10_000
	shareTagDone            = 0
	shareBatchBytes         = 8 + 8 + 1 + 2 + 1
)

// deliveryState is what has become of an offset, by Kafka's number where it has one.
type deliveryState int8

const (
	shareAvailable deliveryState = 0
	shareAcquired  deliveryState = 1 // in memory only
	shareAccepted  deliveryState = 2
	shareSettling  deliveryState = 3 // in memory only: what the holder said is being written
	shareArchived  deliveryState = 4 // rejected, delivered too often, or not there
)

// done says that the offset is not delivered any more.
func (s deliveryState) done() bool { return s == shareAccepted || s == shareArchived }

// shareKey is what a record of __share_group_state is about.
type shareKey struct {
	version int16 // shareSnapshotKeyVersion, shareSettingsKeyVersion, or one that is passed over
	group   string
	at      topicPart // of a snapshot
}

func appendShareKey(dst []byte, k *shareKey) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(k.version))
	dst = appendInt16String(dst, k.group)
	if k.version == shareSnapshotKeyVersion {
		dst = append(dst, k.at.topic[:]...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(k.at.partition))
	}
	return dst
}

// parseShareKey reads a key. A version that is not known gives a key with nothing but
// the version, and no error, as in __consumer_offsets.
func parseShareKey(b []byte) (k shareKey, err error) {
	r := offsetReader{b: b}
	k.version = int16(r.uint16())
	switch k.version {
	case shareSnapshotKeyVersion:
		k.group = r.string16()
		copy(k.at.topic[:], r.take(uint64(len(k.at.topic))))
		k.at.partition = int32(r.uint32())
		r.must(k.at.partition >= 0, "partition")
	case shareSettingsKeyVersion:
		k.group = r.string16()
	default:
		r.must(k.version >= 0, "version")
		r.b = nil
	}
	if r.end() != nil {
		k.at = topicPart{}
	}
	return k, r.end()
}

// shareBatch is offsets, first to last, that have the same state.
type shareBatch struct {
	first, last int64
	state       deliveryState // shareAvailable, shareAccepted or shareArchived
	count       int16
}

// shareSnapshot is all that is kept of a share partition.
type shareSnapshot struct {
	snapshotEpoch, stateEpoch, leaderEpoch int32
	start                                  int64
	created, written                       int64 // milliseconds since 1970
	done                                   int32 // -1: not known
	batches                                []shareBatch
}

func appendShareSnapshot(dst []byte, s *shareSnapshot) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	for _, n := range []int32{s.snapshotEpoch, s.stateEpoch, s.leaderEpoch} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	}
	for _, n := range []int64{s.start, s.created, s.written} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.batches))+1)
	for _, b := range s.batches {
		dst = binary.BigEndian.AppendUint64(dst, uint64(b.first))
		dst = binary.BigEndian.AppendUint64(dst, uint64(b.last))
		dst = binary.BigEndian.AppendUint16(append(dst, byte(b.state)), uint16(b.count))
		dst = append(dst, 0)
	}
	if s.done < 0 {
		return append(dst, 0)
	}
	return binary.BigEndian.AppendUint32(append(dst, 1, shareTagDone, 4), uint32(s.done))
}

func parseShareSnapshot(b []byte) (s shareSnapshot, err error) {
	r := offsetReader{b: b}
	r.must(r.uint16() == 0, "version")
	s.snapshotEpoch, s.stateEpoch, s.leaderEpoch = int32(r.uint32()), int32(r.uint32()), int32(r.uint32())
	s.start, s.created, s.written, s.done = int64(r.uint64()), int64(r.uint64()), int64(r.uint64()), -1
	r.must(s.snapshotEpoch >= 0 && s.stateEpoch >= 0 && s.leaderEpoch >= -1, "epoch")
	r.must(s.start >= 0, "start offset")
	n := r.uvarint()
	r.must(n > 0 && n-1 <= uint64(len(r.b))/shareBatchBytes, "number of batches")
	if r.err == nil && n > 1 {
		s.batches = make([]shareBatch, 0, n-1)
	}
	next := s.start
	for ; n > 1 && r.err == nil; n-- {
		x := shareBatch{first: int64(r.uint64()), last: int64(r.uint64())}
		x.state, x.count = deliveryState(r.take(1)[0]), int16(r.uint16())
		r.tagged(func(uint64, []byte) {})
		r.must(x.first >= next && x.last >= x.first && x.last < math.MaxInt64, "batch")
		r.must((x.state == shareAvailable || x.state.done()) && x.count >= 0, "state")
		next = x.last + 1
		s.batches = append(s.batches, x)
	}
	r.tagged(func(tag uint64, b []byte) {
		if tag != shareTagDone {
			return
		}
		if r.must(len(b) == 4, "number of offsets"); r.err == nil {
			s.done = int32(binary.BigEndian.Uint32(b))
			r.must(s.done >= 0, "number of offsets")
		}
	})
	if err := r.end(); err != nil {
		return shareSnapshot{}, err
	}
	return s, nil
}

// What the settings of one group may take.
const (
	maxShareSettings     = 64
	maxShareSettingBytes = 1024
)

func appendShareSettings(dst []byte, set map[string]string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, 0)
	return appendMap(dst, set)
}

func parseShareSettings(b []byte) (set map[string]string, err error) {
	r := offsetReader{b: b}
	r.must(r.uint16() == 0, "version")
	n, last := r.uvarint(), ""
	r.must(n <= maxShareSettings, "number of settings")
	set = make(map[string]string)
	for i := uint64(0); i < n && r.err == nil; i++ {
		name, value := r.text(r.take(r.uvarint())), r.text(r.take(r.uvarint()))
		r.must((i == 0 || name > last) && len(name)+len(value) <= maxShareSettingBytes, "setting")
		set[name], last = value, name
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return set, nil
}

// explainShare is for Explainer.
func explainShare(key, value []byte) (explained, bool) {
	k, err := parseShareKey(key)
	if err != nil || k.version != shareSnapshotKeyVersion && k.version != shareSettingsKeyVersion {
		return nil, false
	}
	f := explained{"group": k.group, "type": "share settings"}
	if k.version == shareSnapshotKeyVersion {
		f["type"], f["topic_id"], f["partition"] = "share snapshot", k.at.topic.String(), k.at.partition
	}
	if value == nil {
		f["tombstone"] = true
		return f, true
	}
	if k.version == shareSettingsKeyVersion {
		set, err := parseShareSettings(value)
		f["settings"] = set
		return f, err == nil
	}
	s, err := parseShareSnapshot(value)
	if err != nil {
		return nil, false
	}
	maps.Copy(f, explained{
		"snapshot_epoch": s.snapshotEpoch, "state_epoch": s.stateEpoch, "leader_epoch": s.leaderEpoch, "start_offset": s.start,
		"create_timestamp": s.created, "write_timestamp": s.written,
	})
	batches := make([]explained, 0, len(s.batches))
	names := map[deliveryState]string{shareAvailable: "available", shareAccepted: "accepted", shareArchived: "archived"}
	for b := range slices.Values(s.batches) {
		batches = append(batches, explained{"first_offset": b.first, "last_offset": b.last, "state": names[b.state], "delivery_count": b.count})
	}
	f["batches"] = batches
	return f, true
}

// String is for messages.
func (k *shareKey) String() string {
	return fmt.Sprintf("%s of %s/%d", k.group, k.at.topic, k.at.partition)
}
