package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/scram"
	"github.com/x/embedlog/log"
)

// A command is one change of the metadata, as bytes: in a record of meta/, or as
// an entry of a replicated log that carries it unread.
//
//	command  1 version: 1   1 kind   fields
//	string   uvarint length, bytes
//	id       16 bytes
//	map      uvarint count, then name and value of each, names ascending
//	topic    id, name, uvarint partitions, 1 flags (1: internal), map settings
//
// Each value has one encoding only, and nothing follows the fields.
const commandVersion = 1

// commandKind is what a command does.
type commandKind uint8

const (
	createTopicCommand          commandKind = 1  // topic
	alterTopicCommand           commandKind = 2  // id, map of what to set, uvarint count, names to unset
	addPartitionsCommand        commandKind = 3  // id, uvarint total
	deleteTopicCommand          commandKind = 4  // id
	topicDeletedCommand         commandKind = 5  // id
	allocateIDsCommand          commandKind = 6  // uvarint count
	snapshotCommand             commandKind = 7  // 1 flags (1: first part, 2: last part), uvarint next producer id, uvarint count, topics, uvarint count, topics being deleted
	alterUserCommand            commandKind = 8  // user, uvarint count, mechanisms to take away, ascending
	createACLsCommand           commandKind = 9  // acls
	deleteACLsCommand           commandKind = 10 // acls
	alterQuotaCommand           commandKind = 11 // quota to set, uvarint count, names to unset, ascending
	securitySnapshotCommand     commandKind = 12 // 1 flags (2: last part), uvarint count, users by name, acls, uvarint count, quotas by entity
	registerNodeCommand         commandKind = 13 // node
	removeNodeCommand           commandKind = 14 // uvarint node id
	drainNodeCommand            commandKind = 15 // uvarint node id, 1 flags (1: draining)
	createReplicatedCommand     commandKind = 16 // topic, uvarint replication factor, nodes of each partition
	addReplicatedCommand        commandKind = 17 // id, uvarint total, uvarint count, nodes of each partition that is added
	assignCommand               commandKind = 18 // id, uvarint replication factor (0: as it is), uvarint count, uvarint partition, uvarint epoch and nodes of each, ascending
	topicGoneCommand            commandKind = 19 // id, uvarint node id
	clusterSnapshotCommand      commandKind = 20 // 1 flags (2: last part, 4: removed nodes follow, 8: moves follow them), uvarint count, nodes, uvarint count, placements, uvarint count, of deleted topics id and nodes, uvarint count, uvarint node id and directory id of each, uvarint count, moves
	movedCommand                commandKind = 21 // id, uvarint count, uvarint partition and epoch of each, ascending
	lastCommandKind                         = movedCommand
	snapshotFirst, snapshotLast             = 1, 2
)

// What a command may hold: a decoder allocates no more than these allow.
const (
	maxTopicName      = 249 // Kafka's
	maxPartitions     = 100_000
	maxSettings       = 256
	maxSettingName    = 256
	maxSettingValue   = 16 << 10
	maxSettingsBytes  = 64 << 10 // of one topic, names and values
	maxAllocation     = 1 << 20
	maxProducerID     = 1 << 62
	snapshotPartBytes = 256 << 10 // after that many bytes the next part begins
	maxCommandBytes   = 512 << 10
)

// command is a command decoded. Which fields count depends on the kind.
type command struct {
	kind     commandKind
	topic    topicMeta         // createTopic; its id alone where the command is about a topic
	set      map[string]string // alterTopic
	unset    []string          // alterTopic, alterQuota, ascending
	total    int               // addPartitions
	count    int               // allocateIDs
	flags    byte              // snapshot, securitySnapshot
	nextID   int64             // snapshot
	topics   []*topicMeta      // snapshot
	deleting []*topicMeta      // snapshot

	users      []userMeta        // alterUser: one; securitySnapshot
	mechanisms []scram.Mechanism // alterUser: to take away
	acls       []*acl.ACL        // createACLs, deleteACLs, securitySnapshot
	quotas     []Quota           // alterQuota: one, what to set; securitySnapshot

	node       nodeMeta    // registerNode; its id alone where the command is about a node
	factor     int         // createReplicated, assign
	placed     []placed    // createReplicated, addReplicated, assign; moved, without nodes; by partition
	nodes      []*nodeMeta // clusterSnapshot
	placements []placement // clusterSnapshot
	waiting    []waiting   // clusterSnapshot
	removed    []removed   // clusterSnapshot
	moves      []move      // clusterSnapshot
}

// topicMeta is what the metadata says of a topic. It is never changed: an altered
// topic is another one.
type topicMeta struct {
	id         TopicID
	name       string
	partitions int
	internal   bool
	settings   map[string]string // what was set explicitly

	// In a cluster, and nothing alone: see node_state.go.
	factor   int          // how many replicas a partition is to have
	replicas []assignment // of each partition
	waiting  []int32      // of a deleted topic: the nodes that may have files of it
	// before are the replicas that partitions had when the reassignment began that is under way, in their order. It
	// is never changed, and nil where nothing moves.
	before map[int][]int32
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendMap(b []byte, m map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(m)))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		b = appendString(appendString(b, name), m[name])
	}
	return b
}

func (t *topicMeta) appendTo(b []byte) []byte {
	b = append(b, t.id[:]...)
	b = appendString(b, t.name)
	b = binary.AppendUvarint(b, uint64(t.partitions))
	var flags byte
	if t.internal {
		flags = 1
	}
	return appendMap(append(b, flags), t.settings)
}

// encode returns the command's bytes.
func (c *command) encode() []byte {
	b := []byte{commandVersion, byte(c.kind)}
	switch c.kind {
	case createTopicCommand:
		return c.topic.appendTo(b)
	case alterTopicCommand:
		b = appendMap(append(b, c.topic.id[:]...), c.set)
		b = binary.AppendUvarint(b, uint64(len(c.unset)))
		for _, name := range c.unset {
			b = appendString(b, name)
		}
	case addPartitionsCommand:
		b = binary.AppendUvarint(append(b, c.topic.id[:]...), uint64(c.total))
	case deleteTopicCommand, topicDeletedCommand:
		b = append(b, c.topic.id[:]...)
	case allocateIDsCommand:
		b = binary.AppendUvarint(b, uint64(c.count))
	case snapshotCommand:
		b = binary.AppendUvarint(append(b, c.flags), uint64(c.nextID))
		for _, list := range [][]*topicMeta{c.topics, c.deleting} {
			b = binary.AppendUvarint(b, uint64(len(list)))
			for _, t := range list {
				b = t.appendTo(b)
			}
		}
	case registerNodeCommand, removeNodeCommand, drainNodeCommand, createReplicatedCommand, addReplicatedCommand, assignCommand, topicGoneCommand, clusterSnapshotCommand, movedCommand:
		b = c.encodeCluster(b)
	default:
		b = c.encodeSecurity(b)
	}
	return b
}

// errCommand is what is wrong with bytes that are no command.
var errCommand = errors.New("malformed metadata command")

// decodeCommand reads what encode wrote. A version or kind that is not known
// matches log.ErrNewerFormat.
func decodeCommand(b []byte) (*command, error) {
	d := decoder{b: b}
	version, c := d.byte(), &command{}
	c.kind = commandKind(d.byte())
	if d.failed {
		return nil, errCommand
	}
	if version > commandVersion || version == commandVersion && c.kind > lastCommandKind {
		return nil, fmt.Errorf("metadata command of version %d, kind %d: %w", version, c.kind, log.ErrNewerFormat)
	}
	if version != commandVersion || len(b) > maxCommandBytes {
		return nil, errCommand
	}
	switch c.kind {
	case createTopicCommand:
		c.topic = d.topic()
	case alterTopicCommand:
		c.topic.id, c.set = d.id(), d.settings()
		c.unset = d.names()
	case addPartitionsCommand:
		c.topic.id, c.total = d.id(), int(d.number(maxPartitions))
	case deleteTopicCommand, topicDeletedCommand:
		c.topic.id = d.id()
	case allocateIDsCommand:
		c.count = int(d.number(maxAllocation))
	case snapshotCommand:
		c.flags = d.byte()
		d.check(c.flags <= snapshotFirst|snapshotLast)
		c.nextID = int64(d.number(maxProducerID))
		c.topics, c.deleting = d.topics(), d.topics()
	case alterUserCommand, createACLsCommand, deleteACLsCommand, alterQuotaCommand, securitySnapshotCommand:
		d.security(c)
	case registerNodeCommand, removeNodeCommand, drainNodeCommand, createReplicatedCommand, addReplicatedCommand, assignCommand, topicGoneCommand, clusterSnapshotCommand, movedCommand:
		d.cluster(c)
	default:
		return nil, errCommand
	}
	if d.failed || len(d.b) != 0 {
		return nil, errCommand
	}
	return c, nil
}

// decoder takes values off the front of b. After the first that is not there all
// are zero, and failed is set.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) check(ok bool) {
	if !ok {
		d.failed, d.b = true, nil
	}
}

func (d *decoder) take(n int) []byte {
	if d.check(n <= len(d.b)); d.failed {
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) id() (id TopicID) {
	copy(id[:], d.take(len(id)))
	return id
}

// number is a varint of at most limit, in its shortest form.
func (d *decoder) number(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if d.check(n > 0 && v <= limit && (n == 1 || d.b[n-1] != 0)); d.failed {
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string(limit uint64) string { return string(d.take(int(d.number(limit)))) }

func (d *decoder) settings() map[string]string {
	n := d.number(maxSettings)
	m := make(map[string]string)
	last, size := "", 0
	for i := range n {
		name, value := d.string(maxSettingName), d.string(maxSettingValue)
		size += len(name) + len(value)
		if d.check((i == 0 || name > last) && size <= maxSettingsBytes); d.failed {
			return nil
		}
		m[name], last = value, name
	}
	return m
}

func (d *decoder) names() (names []string) {
	n := d.number(maxSettings)
	for i := range n {
		name := d.string(maxSettingName)
		if d.check(i == 0 || name > names[i-1]); d.failed {
			return nil
		}
		names = append(names, name)
	}
	return names
}

func (d *decoder) topic() (t topicMeta) {
	t.id, t.name = d.id(), d.string(maxTopicName)
	t.partitions = int(d.number(maxPartitions))
	flags := d.byte()
	d.check(flags <= 1)
	t.internal = flags == 1
	t.settings = d.settings()
	return t
}

// topics grows the list as topics are found: what the count claims is not believed.
func (d *decoder) topics() (list []*topicMeta) {
	for range d.number(maxCommandBytes) {
		t := d.topic()
		if d.failed {
			return nil
		}
		list = append(list, &t)
	}
	return list
}
