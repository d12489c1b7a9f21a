package kafka

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/partition"
)

// Who is who in a cluster: what clients are told of brokers, leaders and replicas. An
// engine that is alone is one broker, which leads everything.

// broker is a node as clients see it.
type broker struct {
	id int32
	endpoint
}

// brokers are the nodes that take calls on a listener like the one the client has come
// to, by number. Who was not heard of lately is left out, as in Kafka.
func (r *request) brokers() []broker {
	self := broker{r.srv.nodeID, r.conn.listener.advertise}
	nodes := r.engine.Nodes()
	if nodes == nil {
		return []broker{self}
	}
	var list []broker
	for _, n := range nodes {
		if n.ID == self.id {
			list = append(list, self)
			continue
		}
		if !n.Alive {
			continue
		}
		if at, ok := endpointOf(&n, r.conn.listener.name); ok {
			list = append(list, broker{n.ID, at})
		}
	}
	return list
}

// brokerOf is a node, if it takes calls.
func (r *request) brokerOf(id int32) (broker, bool) {
	list := r.brokers()
	i := slices.IndexFunc(list, func(b broker) bool { return b.id == id })
	if i < 0 {
		return broker{id: -1, endpoint: endpoint{"", -1}}, false
	}
	return list[i], true
}

func endpointOf(n *engine.NodeInfo, listener string) (endpoint, bool) {
	for _, e := range n.Endpoints {
		if e.Listener == listener {
			return endpoint{e.Host, int32(e.Port)}, true
		}
	}
	return endpoint{}, false
}

// listenerNames are the names under which nodes know each other's listeners: Kafka's, of
// how clients talk there, and a number where there are several alike.
func listenerNames(list []Listener) []string {
	names := make([]string, len(list))
	times := make(map[string]int)
	for i := range list {
		name := "PLAINTEXT"
		switch tls, sasl := list[i].TLS != nil, list[i].SASL != nil; {
		case tls && sasl:
			name = "SASL_SSL"
		case tls:
			name = "SSL"
		case sasl:
			name = "SASL_PLAINTEXT"
		}
		times[name]++
		if n := times[name]; n > 1 {
			name += "-" + strconv.Itoa(n)
		}
		names[i] = name
	}
	return names
}

// advertise has the other nodes know where this one takes calls.
func (s *Server) advertise() {
	list := make([]engine.Endpoint, len(s.listeners))
	for i, l := range s.listeners {
		list[i] = engine.Endpoint{Listener: l.name, Host: l.advertise.host, Port: uint16(l.advertise.port)}
	}
	s.engine.Advertise(list)
}

// controller is the node that leads the metadata; -1 when nobody is known to.
func (r *request) controller() int32 {
	if r.engine.Cluster() == nil {
		return r.srv.nodeID
	}
	node, _ := r.engine.MetaLeader()
	return node
}

// leaderOf is who leads a partition, and in which epoch.
func (r *request) leaderOf(p *engine.Partition) (node, epoch int32) {
	if r.engine.Cluster() == nil {
		return r.srv.nodeID, p.LeaderEpoch()
	}
	return p.Leader()
}

// placement is where the replicas of a partition are.
type placement struct {
	leader, epoch          int32
	replicas, isr, offline []int32
}

// placements tells of the partitions of one topic after the other.
type placements struct {
	r       *request
	brokers []broker // that take calls; nil alone
}

func (r *request) placements() placements {
	if r.engine.Cluster() == nil {
		return placements{r: r}
	}
	return placements{r, r.brokers()}
}

// of is where a partition's replicas are. What is in sync the leader knows, and says to the others
// every few seconds; until it has, those that are there are taken for it.
func (x *placements) of(t *engine.Topic, p *engine.Partition) (at placement) {
	at.leader, at.epoch = x.r.leaderOf(p)
	at.offline = []int32{}
	if x.brokers == nil {
		at.replicas = []int32{x.r.srv.nodeID}
		at.isr = at.replicas
		return at
	}
	at.replicas = slices.Clone(t.Replicas(p.ID()))
	if at.replicas == nil {
		at.replicas = []int32{}
	}
	at.isr = []int32{}
	there := func(id int32) bool {
		return slices.ContainsFunc(x.brokers, func(b broker) bool { return b.id == id })
	}
	inSync, known := p.InSync()
	for _, id := range at.replicas {
		if !there(id) {
			at.offline = append(at.offline, id)
			continue
		}
		if !known || slices.Contains(inSync, id) || id == at.leader {
			at.isr = append(at.isr, id)
		}
	}
	if at.leader >= 0 && !there(at.leader) {
		at.leader = -1 // as far as clients can reach
	}
	return at
}

// code says whether there is a leader that a client can go to.
func (at *placement) code() int16 {
	if at.leader < 0 {
		return codeLeaderNotAvailable
	}
	return codeNone
}

// mustLead is an error where another node leads the partition.
func (r *request) mustLead(p *engine.Partition) error {
	if r.engine.Cluster() == nil || p.Leads() {
		return nil
	}
	node, epoch := p.Leader()
	return &partition.NotLeaderError{Leader: node, LeaderEpoch: epoch}
}

// mustKnow is mustLead for what only a leader knows that has committed an entry of its own
// epoch: where the records end, and its predecessors' epochs. One that was only just elected would
// answer with what its replica knew, and a client that had read further would take that for loss,
// and go back. (KIP-320) It does not wait: the client asks again.
func (r *request) mustKnow(p *engine.Partition) error {
	if err := r.mustLead(p); err != nil || r.engine.Cluster() == nil {
		return err
	}
	if _, err := p.Replicated().Lead(over); err != nil {
		_, epoch := p.Leader()
		return &partition.NotLeaderError{Leader: -1, LeaderEpoch: epoch} // not quite yet
	}
	return nil
}

// over is a context that has ended, for who does not wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// confirmTime bounds how long a leader may take to find out whether it still is one.
const confirmTime = time.Second

// confirmEnd is err, which says that an offset is behind the log's end, if a majority agrees
// that this node leads. One that was paused or cut off may have been replaced since it was asked,
// and a client that had read further from its successor would go back.
func (r *request) confirmEnd(p *engine.Partition, err error) error {
	if r.engine.Cluster() == nil {
		return err
	}
	if p.Replicated() == nil {
		return partition.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(r.life, confirmTime)
	defer cancel()
	if p.Replicated().Confirm(ctx) != nil {
		node, epoch := p.Leader()
		return &partition.NotLeaderError{Leader: node, LeaderEpoch: epoch}
	}
	return err
}

// leaderNow completes an error of a partition that says that this node does not lead it,
// with who does: nil for other errors, and when nobody is known to.
func leaderNow(p *engine.Partition, err error) *partition.NotLeaderError {
	var lost *partition.NotLeaderError
	if !errors.As(err, &lost) {
		return nil
	}
	if lost.Leader < 0 && p != nil {
		node, epoch := p.Leader()
		lost = &partition.NotLeaderError{Leader: node, LeaderEpoch: epoch}
	}
	if lost.Leader < 0 {
		return nil
	}
	return lost
}

// writeEndpoints ends an answer with the tagged field that says where the nodes are that
// were named as leaders. (KIP-951)
func (r *request) writeEndpoints(e encoder, nodes []int32) {
	if !e.flexible {
		return
	}
	slices.Sort(nodes)
	var list []broker
	size := 1
	for _, id := range slices.Compact(nodes) {
		if b, ok := r.brokerOf(id); ok && len(b.host) < 128-1 {
			list = append(list, b)
			size += 4 + 1 + len(b.host) + 4 + 1 + 1
		}
	}
	if len(list) == 0 {
		e.tags()
		return
	}
	if n := len(list) + 1; n >= 128 {
		e.tags() // more than a client could use
		return
	}
	e.uvarint(1)
	e.uvarint(0)
	e.uvarint(size)
	e.array(len(list))
	for _, b := range list {
		e.int32(b.id)
		e.text(b.host)
		e.int32(b.port)
		e.nullText("")
		e.uvarint(0)
	}
}
