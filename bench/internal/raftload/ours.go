package raftload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/raftrepl"
)

// Operations of our nodes besides those that every system has. See Database.
const (
	OpStatus  = "status"  // Status
	OpTopic   = "topic"   // Topic: makes it where it is not there
	OpAdd     = "add"     // AddNode: lets a node take part
	OpFactor  = "factor"  // Topic: another replication factor
	OpProduce = "produce" // Produce: one record; int64, its offset
	OpFill    = "fill"    // Fill: so many records, pipelined
	OpHolds   = "holds"   // string, a topic: []Held, what this node has of its partitions
	OpWritten = "written" // Written: what this node has written to its files
)

// Operation is one of our nodes', for what bench adds to those here.
type Operation func(ctx context.Context, db *embedlog.DB, in json.RawMessage) (any, error)

// OpenOurs opens one of our nodes that knows more operations besides those here.
func OpenOurs(more map[string]Operation) func(*NodeConfig) (Server, error) {
	return func(c *NodeConfig) (Server, error) { return openOurs(c, more) }
}

// Settings are what our nodes are told besides.
type Settings struct {
	// Count has all writes to files counted, for OpWritten. It costs what it counts.
	Count bool
}

type ours struct {
	c       *NodeConfig
	db      *embedlog.DB
	counter *countingFS
	more    map[string]Operation
}

func openOurs(c *NodeConfig, more map[string]Operation) (_ Server, err error) {
	var s Settings
	if err := json.Unmarshal(c.Settings, &s); err != nil {
		return nil, err
	}
	config := raftrepl.Config{
		Node: c.Node, Cluster: ClusterName, Listen: c.Addresses[strconv.Itoa(int(c.Node))], Join: c.Join,
		TLS: raftrepl.TLS{CA: c.CA, Cert: c.Cert, Key: c.Key},
	}
	if c.Fast {
		config.Timing = raftrepl.FastTiming
	}
	if c.Join == "" && c.Nodes > 1 {
		config.Peers = map[int32]string{}
		for n := 1; n <= c.Nodes; n++ {
			config.Peers[int32(n)] = c.Addresses[strconv.Itoa(n)]
		}
	}
	node, err := raftrepl.New(config)
	if err != nil {
		return nil, err
	}
	o := &ours{c: c, more: more}
	options := &embedlog.Options{Replication: node, LockTimeout: startTimeout}
	if !s.Count {
		o.db, err = embedlog.Open(c.Dir, options)
		return o, err
	}
	fs, err := vfs.OS(c.Dir)
	if err != nil {
		return nil, err
	}
	o.counter = &countingFS{FS: fs}
	o.db, err = embedlog.OpenFS(o.counter, options)
	return o, err
}

func (o *ours) Close() error { return o.db.Close() }

// Status is the cluster as one node sees it.
type Status struct {
	// Alive are the nodes that have registered and were heard of lately.
	Alive []int32
	Logs  []LogStatus // the metadata first, whose topic is empty
}

// LogStatus is one log as a node sees it.
type LogStatus struct {
	Topic     string
	Partition int32
	Leader    int32
	InSync    []int32 // only its leader knows
	Reason    string
}

// Of finds a partition.
func (s *Status) Of(topic string, partition int32) (LogStatus, bool) {
	for _, l := range s.Logs {
		if l.Topic == topic && l.Partition == partition {
			return l, true
		}
	}
	return LogStatus{}, false
}

// Topic is one that is to be there.
type Topic struct {
	Name       string
	Partitions int
	Factor     int
}

// AddNode is a node that is let in.
type AddNode struct {
	Node    int32
	Address string
}

// Produce is one record for a partition.
type Produce struct {
	Topic     string
	Partition int32
	Value     []byte
	Timeout   time.Duration // zero is 5 s
}

// Fill is records for partition 0 of a topic.
type Fill struct {
	Topic   string
	Records int64
	Bytes   int // of a value
}

// Held is what a node has of one partition.
type Held struct {
	Partition             int32
	Leader                int32
	LogEnd, HighWatermark int64
	// FrameBytes is what its frames take in its files, without what lies ahead of them. It is
	// 0 where this node has no replica.
	FrameBytes int64
}

func (o *ours) Do(ctx context.Context, op string, in json.RawMessage) (any, error) {
	switch op {
	case OpPrepare:
		l, err := decode[Load](in)
		if err != nil {
			return nil, err
		}
		return nil, o.topic(ctx, Topic{Name: l.Place(), Partitions: 1, Factor: o.c.Nodes})
	case OpLeads:
		l, err := decode[Load](in)
		if err != nil {
			return nil, err
		}
		st := o.status()
		p, ok := st.Of(l.Place(), 0)
		return ok && p.Leader == o.c.Node && len(p.InSync) == o.c.Nodes, nil
	case OpLoad:
		l, err := decode[Load](in)
		if err != nil {
			return nil, err
		}
		return o.load(ctx, &l)
	case OpStatus:
		return o.status(), nil
	case OpTopic:
		t, err := decode[Topic](in)
		if err != nil {
			return nil, err
		}
		return nil, o.topic(ctx, t)
	case OpAdd:
		a, err := decode[AddNode](in)
		if err != nil {
			return nil, err
		}
		return nil, o.db.Cluster().AddNode(ctx, a.Node, a.Address)
	case OpFactor:
		t, err := decode[Topic](in)
		if err != nil {
			return nil, err
		}
		return nil, o.db.Cluster().SetReplicationFactor(ctx, t.Name, t.Factor)
	case OpProduce:
		return o.produce(ctx, in)
	case OpFill:
		return nil, o.fill(in)
	case OpHolds:
		return o.holds(in)
	case OpWritten:
		if o.counter == nil {
			return nil, errors.New("nothing is counted")
		}
		return o.counter.written(), nil
	}
	if f := o.more[op]; f != nil {
		return f(ctx, o.db, in)
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

func (o *ours) status() Status {
	var s Status
	for _, n := range o.db.Cluster().Nodes() {
		if n.Alive && !n.Directory.IsZero() {
			s.Alive = append(s.Alive, n.ID)
		}
	}
	for _, l := range o.db.Cluster().Status() {
		s.Logs = append(s.Logs, LogStatus{Topic: l.Topic, Partition: l.Partition, Leader: l.Leader, InSync: l.InSync, Reason: l.Reason})
	}
	return s
}

func (o *ours) topic(ctx context.Context, t Topic) error {
	_, err := o.db.EnsureTopic(ctx, t.Name, &embedlog.TopicConfig{Partitions: t.Partitions, ReplicationFactor: t.Factor, Durability: embedlog.Durable})
	return err
}

func (o *ours) produce(ctx context.Context, in json.RawMessage) (any, error) {
	p, err := decode[Produce](in)
	if err != nil {
		return nil, err
	}
	if p.Timeout == 0 {
		p.Timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	t, err := o.db.Topic(p.Topic)
	if err != nil {
		return nil, err
	}
	at, err := t.ProduceTo(ctx, p.Partition, embedlog.Record{Value: p.Value})
	if err != nil {
		return nil, err
	}
	return at[0].Offset, nil
}

// ourProducer is a Producer of partition 0 of a topic.
type ourProducer struct {
	topic *embedlog.Topic
	p     *embedlog.Producer
}

// batchBytes is the largest batch of a producer: what Kafka's clients send at once.
const batchBytes = 1 << 20

func (o *ours) producer(topic string) (Producer, error) {
	t, err := o.db.Topic(topic)
	if err != nil {
		return nil, err
	}
	p, err := o.db.Producer(&embedlog.ProducerConfig{BatchBytes: batchBytes})
	if err != nil {
		return nil, err
	}
	return &ourProducer{t, p}, nil
}

func (p *ourProducer) Produce(ctx context.Context, value []byte) error {
	_, err := p.topic.Produce(ctx, embedlog.Record{Value: value})
	return err
}

func (p *ourProducer) Sender(done func(error)) func([]byte) error {
	topic := p.topic.Name()
	acked := func(_ embedlog.Position, err error) { done(err) }
	return func(value []byte) error {
		return p.p.Send(context.Background(), embedlog.Record{Topic: topic, Value: value}, acked)
	}
}

func (p *ourProducer) Close() error { return p.p.Close() }

func (o *ours) load(ctx context.Context, l *Load) (Result, error) {
	before, err := o.entries(l.Place())
	if err != nil {
		return Result{}, err
	}
	res, err := l.Run(ctx, func() (Producer, error) { return o.producer(l.Place()) })
	if err != nil {
		return res, err
	}
	after, err := o.entries(l.Place())
	res.Groups = after - before
	return res, err
}

// entries is how many entries partition 0 of the topic has.
func (o *ours) entries(topic string) (int64, error) {
	t, err := o.db.Engine().Topic(topic)
	if err != nil {
		return 0, err
	}
	p, err := t.Partition(0)
	if err != nil {
		return 0, err
	}
	last, _ := p.Partition.LastEntry()
	return int64(last), nil
}

func (o *ours) fill(in json.RawMessage) error {
	f, err := decode[Fill](in)
	if err != nil {
		return err
	}
	p, err := o.producer(f.Topic)
	if err != nil {
		return err
	}
	pool := Values(f.Bytes)
	w := newWindow(8192)
	send := p.Sender(w.release)
	for i := range f.Records {
		if !w.acquire() {
			break
		}
		if err := send(pool[i%int64(len(pool))]); err != nil {
			w.release(err)
			break
		}
	}
	_, err = w.wait()
	return errors.Join(err, p.Close())
}

// segmentBytes is what a segment file has besides frames, and markBytes what lies behind the
// last one: see docs/format.md.
const (
	segmentBytes = 128
	markBytes    = 56
)

func (o *ours) holds(in json.RawMessage) (any, error) {
	name, err := decode[string](in)
	if err != nil {
		return nil, err
	}
	t, err := o.db.Engine().Topic(name)
	if err != nil {
		return nil, err
	}
	var list []Held
	for _, p := range t.Partitions() {
		h := Held{Partition: p.ID(), LogEnd: p.LogEnd(), HighWatermark: p.HighWatermark()}
		h.Leader, _ = p.Leader()
		if !p.Elsewhere() {
			c, err := p.Log().Capture()
			if err != nil {
				return nil, err
			}
			for _, s := range c.Segments {
				h.FrameBytes += s.Bytes - segmentBytes
			}
			h.FrameBytes -= markBytes
		}
		list = append(list, h)
	}
	return list, nil
}
