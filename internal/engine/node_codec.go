package engine

import "encoding/binary"

// The fields of commands about nodes and replicas, see command.go:
//
//	node      uvarint id, 16 directory id, string address, uvarint count, endpoints, 1 flags (1: draining)
//	endpoint  string listener, string host, uvarint port
//	nodes     uvarint count, uvarint id of each, in order of preference
//	move      topic id, uvarint partition, nodes
const nodeDraining = 1

// Flags of a part of a snapshot of a cluster: directories of removed nodes follow, one or more, and
// partitions whose replicas are being moved.
const snapshotRemoved, snapshotMoves = 4, 8

// placed gives one partition its replicas.
type placed struct {
	partition int
	assignment
}

// placement is what a part of a snapshot says of a topic's replicas: those of a row
// of partitions.
type placement struct {
	topic    TopicID
	factor   int
	start    int // the first of them
	replicas []assignment
}

// waiting is what a part of a snapshot says of a deleted topic: which nodes may have
// files of it.
type waiting struct {
	topic TopicID
	nodes []int32
}

// removed is the directory of a node that was removed: it does not get in again.
type removed struct {
	node      int32
	directory TopicID
}

// move is what a part of a snapshot says of a partition whose replicas are being moved: which it had before.
type move struct {
	topic     TopicID
	partition int
	nodes     []int32
}

func appendNodes(b []byte, nodes []int32) []byte {
	b = binary.AppendUvarint(b, uint64(len(nodes)))
	for _, n := range nodes {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func (n *nodeMeta) appendTo(b []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(n.id)), n.directory[:]...)
	b = appendString(b, n.address)
	b = binary.AppendUvarint(b, uint64(len(n.endpoints)))
	for _, p := range n.endpoints {
		b = appendString(appendString(b, p.Listener), p.Host)
		b = binary.AppendUvarint(b, uint64(p.Port))
	}
	var flags byte
	if n.draining {
		flags = nodeDraining
	}
	return append(b, flags)
}

// encodeCluster appends the fields of a command about nodes and replicas.
func (c *command) encodeCluster(b []byte) []byte {
	switch c.kind {
	case registerNodeCommand:
		return c.node.appendTo(b)
	case removeNodeCommand:
		return binary.AppendUvarint(b, uint64(c.node.id))
	case drainNodeCommand:
		b = binary.AppendUvarint(b, uint64(c.node.id))
		return append(b, c.flags)
	case createReplicatedCommand:
		b = binary.AppendUvarint(c.topic.appendTo(b), uint64(c.factor))
		for _, p := range c.placed {
			b = appendNodes(b, p.nodes)
		}
	case addReplicatedCommand:
		b = binary.AppendUvarint(append(b, c.topic.id[:]...), uint64(c.total))
		b = binary.AppendUvarint(b, uint64(len(c.placed)))
		for _, p := range c.placed {
			b = appendNodes(b, p.nodes)
		}
	case assignCommand:
		b = binary.AppendUvarint(append(b, c.topic.id[:]...), uint64(c.factor))
		b = binary.AppendUvarint(b, uint64(len(c.placed)))
		for _, p := range c.placed {
			b = binary.AppendUvarint(b, uint64(p.partition))
			b = appendNodes(binary.AppendUvarint(b, uint64(p.epoch)), p.nodes)
		}
	case movedCommand:
		b = binary.AppendUvarint(append(b, c.topic.id[:]...), uint64(len(c.placed)))
		for _, p := range c.placed {
			b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(p.partition)), uint64(p.epoch))
		}
	case topicGoneCommand:
		return binary.AppendUvarint(append(b, c.topic.id[:]...), uint64(c.node.id))
	case clusterSnapshotCommand:
		flags := c.flags
		if len(c.removed) > 0 {
			flags |= snapshotRemoved
		}
		if len(c.moves) > 0 {
			flags |= snapshotMoves
		}
		b = binary.AppendUvarint(append(b, flags), uint64(len(c.nodes)))
		for _, n := range c.nodes {
			b = n.appendTo(b)
		}
		b = binary.AppendUvarint(b, uint64(len(c.placements)))
		for _, p := range c.placements {
			b = binary.AppendUvarint(append(b, p.topic[:]...), uint64(p.factor))
			b = binary.AppendUvarint(b, uint64(p.start))
			b = binary.AppendUvarint(b, uint64(len(p.replicas)))
			for _, a := range p.replicas {
				b = appendNodes(binary.AppendUvarint(b, uint64(a.epoch)), a.nodes)
			}
		}
		b = binary.AppendUvarint(b, uint64(len(c.waiting)))
		for _, w := range c.waiting {
			b = appendNodes(append(b, w.topic[:]...), w.nodes)
		}
		if len(c.removed) > 0 {
			b = binary.AppendUvarint(b, uint64(len(c.removed)))
			for _, r := range c.removed {
				b = append(binary.AppendUvarint(b, uint64(r.node)), r.directory[:]...)
			}
		}
		if len(c.moves) > 0 {
			b = binary.AppendUvarint(b, uint64(len(c.moves)))
			for _, m := range c.moves {
				b = appendNodes(binary.AppendUvarint(append(b, m.topic[:]...), uint64(m.partition)), m.nodes)
			}
		}
	}
	return b
}

// cluster reads what encodeCluster wrote.
func (d *decoder) cluster(c *command) {
	switch c.kind {
	case registerNodeCommand:
		c.node = d.node()
		d.check(!c.node.draining)
	case removeNodeCommand:
		c.node.id = d.nodeID()
	case drainNodeCommand:
		c.node.id, c.flags = d.nodeID(), d.byte()
		d.check(c.flags <= nodeDraining)
	case createReplicatedCommand:
		c.topic = d.topic()
		c.factor = int(d.number(maxReplicas))
		for i := 0; i < c.topic.partitions && !d.failed; i++ {
			c.placed = append(c.placed, placed{i, assignment{1, d.nodeList(maxReplicas)}})
		}
	case addReplicatedCommand:
		c.topic.id, c.total = d.id(), int(d.number(maxPartitions))
		n := int(d.number(maxPartitions))
		d.check(n <= c.total)
		for i := 0; i < n && !d.failed; i++ {
			c.placed = append(c.placed, placed{c.total - n + i, assignment{1, d.nodeList(maxReplicas)}})
		}
	case assignCommand, movedCommand:
		c.topic.id = d.id()
		if c.kind == assignCommand {
			c.factor = int(d.number(maxReplicas))
		}
		last := -1
		for range d.number(maxPartitions) {
			p := placed{partition: int(d.number(maxPartitions - 1))}
			if p.epoch = int32(d.number(maxNodeID)); c.kind == assignCommand {
				p.nodes = d.nodeList(maxReplicas)
			}
			if d.check(p.partition > last); d.failed {
				return
			}
			last = p.partition
			c.placed = append(c.placed, p)
		}
	case topicGoneCommand:
		c.topic.id, c.node.id = d.id(), d.nodeID()
	case clusterSnapshotCommand:
		c.flags = d.byte()
		d.check(c.flags&^(snapshotLast|snapshotRemoved|snapshotMoves) == 0)
		d.clusterSnapshot(c)
	}
}

func (d *decoder) clusterSnapshot(c *command) {
	for range d.number(maxNodes) {
		n := d.node()
		if d.failed {
			return
		}
		c.nodes = append(c.nodes, &n)
	}
	for range d.number(maxCommandBytes) {
		p := placement{topic: d.id(), factor: int(d.number(maxReplicas)), start: int(d.number(maxPartitions))}
		for n := d.number(maxPartitions); n > 0 && !d.failed; n-- {
			p.replicas = append(p.replicas, assignment{int32(d.number(maxNodeID)), d.nodeList(maxReplicas)})
		}
		if d.failed {
			return
		}
		c.placements = append(c.placements, p)
	}
	for range d.number(maxCommandBytes) {
		w := waiting{topic: d.id(), nodes: d.nodeList(maxNodes)}
		if d.failed {
			return
		}
		c.waiting = append(c.waiting, w)
	}
	if c.flags&snapshotRemoved != 0 {
		n := d.number(maxRemoved)
		d.check(n > 0)
		for range n {
			r := removed{d.nodeID(), d.id()}
			if d.failed {
				return
			}
			c.removed = append(c.removed, r)
		}
	}
	if c.flags&snapshotMoves != 0 {
		n := d.number(maxCommandBytes)
		d.check(n > 0)
		for range n {
			m := move{d.id(), int(d.number(maxPartitions - 1)), d.nodeList(maxReplicas)}
			if d.failed {
				return
			}
			c.moves = append(c.moves, m)
		}
	}
	c.flags &^= snapshotRemoved | snapshotMoves
}

func (d *decoder) nodeID() int32 { return int32(d.number(maxNodeID)) }

func (d *decoder) nodeList(limit uint64) (list []int32) {
	for range d.number(limit) {
		n := d.nodeID()
		if d.failed {
			return nil
		}
		list = append(list, n)
	}
	return list
}

func (d *decoder) node() (n nodeMeta) {
	n.id, n.directory, n.address = d.nodeID(), d.id(), d.string(maxAddress)
	for range d.number(maxEndpoints) {
		p := Endpoint{Listener: d.string(maxAddress), Host: d.string(maxAddress), Port: uint16(d.number(1<<16 - 1))}
		if d.failed {
			return n
		}
		n.endpoints = append(n.endpoints, p)
	}
	flags := d.byte()
	d.check(flags <= nodeDraining)
	n.draining = flags == nodeDraining
	return n
}
