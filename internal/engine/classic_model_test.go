package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// classicWorld is clients of a group of both protocols, on the other side of a network that
// loses calls and answers, and of a database that is restarted. What clients hold is
// the truth about who reads what.
type classicWorld struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	fs      *vfs.Mem
	e       *Engine
	topics  map[string]*Topic
	clients []*classicClient
	coop    bool // classic clients keep what they have through a rebalance
	epochs  bool // there are members with an epoch
	nextID  int
	log     []string

	committed map[string]int64                               // "topic/partition": what the group has said last
	sent      map[int32][]map[string][]byte                  // of each generation, what leaders have sent for it
	leaders   map[int32]string                               // of each generation
	got       map[int32]map[string][]byte                    // of each generation, what members were assigned
	ghosts    []CommitRequest                                // commits that arrive late
	saw       struct{ lost, expired, fenced, takenOver int } // so that a run that tests nothing is noticed
	rest      struct{ moved, restarts, upgrades, downgrades, ghosts, generations int }
	kind      GroupType
}

// classicClient is one process.
type classicClient struct {
	w            *classicWorld
	name         string
	epochMember  bool // it speaks with an epoch
	id, instance string
	skips        bool // it knows of KIP-814
	gen          int32
	topics       []string
	asked        []string // of them in the last Join
	session      time.Duration
	rebalance    time.Duration

	synced   bool // it has what it was assigned in this generation
	mustJoin bool
	leads    []JoinMember
	leader   bool
	skip     bool
	join     *call[JoinResponse]
	sync     *call[SyncResponse]
	stop     context.CancelFunc // of the call that waits

	holds    map[string]int64 // "topic/partition": the position in it
	contact  time.Time        // of the last answer
	good     time.Time        // when all was well last
	silent   bool             // it works on and calls no more
	reported bool             // of an epoch member: the group knows what it holds
}

func (w *classicWorld) note(format string, args ...any) {
	w.log = append(w.log, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (w *classicWorld) fail(format string, args ...any) {
	w.t.Helper()
	if len(w.log) > 80 {
		w.log = w.log[len(w.log)-80:]
	}
	for _, line := range w.log {
		w.t.Log(line)
	}
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *classicWorld) open() {
	w.t.Helper()
	e, err := Open("mem", &Options{FS: w.fs, MaintenanceInterval: -1, GroupMinSessionTimeout: time.Second})
	if err != nil {
		w.fail("open: %v", err)
	}
	w.e = e
	w.topics = map[string]*Topic{}
	for _, t := range e.Topics() {
		w.topics[t.Name()] = t
	}
}

// restart closes the database, or has the power go.
func (w *classicWorld) restart() {
	w.rest.restarts++
	if x := w.group(); x != nil && x.recorded != memberRecord {
		// Members with an epoch are forgotten, and who was with them: as the next connection
		// would tell them.
		for _, c := range w.clients {
			c.lose("the database was restarted")
		}
	}
	if w.rng.IntN(2) == 0 {
		w.fs = w.fs.AfterCrash(vfs.Random(w.rng.Uint64()))
		w.note("the power goes")
	} else {
		defer func() { w.note("restarted") }()
		if err := w.e.Close(); err != nil {
			w.fail("close: %v", err)
		}
		w.fs = w.fs.AfterKill()
	}
	w.e.Close()
	synctest.Wait()
	for _, c := range w.clients {
		c.drop()
	}
	w.open()
}

// drop forgets a call that waits.
func (c *classicClient) drop() {
	if c.stop != nil {
		c.stop()
	}
	c.join, c.sync, c.stop = nil, nil, nil
}

// lose is what a client does that is no member any more.
func (c *classicClient) lose(why string) {
	if len(c.holds) > 0 || c.synced {
		c.w.note("%s loses %v: %s", c.name, slices.Sorted(maps.Keys(c.holds)), why)
	}
	c.holds, c.synced, c.mustJoin, c.reported = map[string]int64{}, false, true, false
	if c.epochMember {
		c.gen = 0
	}
}

func (c *classicClient) partitions() []namedParts { return partsOf(maps.Keys(c.holds)) }

func partsOf(keys func(yield func(string) bool)) (list []namedParts) {
	for _, key := range slices.Sorted(keys) {
		var p int32
		topic, _, _ := bytes.Cut([]byte(key), []byte("/"))
		fmt.Sscanf(key[len(topic)+1:], "%d", &p)
		if n := len(list); n > 0 && list[n-1].topic == string(topic) {
			list[n-1].partitions = append(list[n-1].partitions, p)
		} else {
			list = append(list, namedParts{string(topic), []int32{p}})
		}
	}
	return list
}

func keysOf(list []namedParts) map[string]bool {
	keys := map[string]bool{}
	for _, t := range list {
		for _, p := range t.partitions {
			keys[fmt.Sprintf("%s/%d", t.topic, p)] = true
		}
	}
	return keys
}

// answered notes what an error means, and whether there was one. at is when the
// answer was given.
func (c *classicClient) answered(what string, err error, at time.Time) bool {
	c.w.note("%s (%s, generation %d) %s: %v", c.name, c.id, c.gen, what, err)
	var need *MemberIDRequiredError
	switch {
	case err == nil:
		if !c.epochMember || what != "commit" {
			c.contact = at
		}
		return true
	case errors.As(err, &need):
		c.id = need.MemberID
	case errors.Is(err, ErrRebalancing):
		c.contact, c.mustJoin = at, true
	case errors.Is(err, ErrUnknownMember):
		c.w.saw.fenced++
		if c.lose("unknown member"); !c.epochMember {
			c.id = ""
		}
	case errors.Is(err, ErrFencedInstance), errors.Is(err, ErrIllegalGeneration), errors.Is(err, ErrRebalance):
		c.w.saw.fenced++
		c.lose(err.Error())
	case errors.Is(err, ErrInstanceInUse): // later
	case errors.Is(err, log.ErrClosed) || errors.Is(err, context.Canceled):
	default:
		c.w.fail("%s: %s: %v", c.name, what, err)
	}
	return false
}

// send begins a Join or a Sync.
func (c *classicClient) send() {
	w := c.w
	if c.join != nil || c.sync != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	if c.mustJoin {
		if !w.coop { // an eager one lets everything go, its positions committed
			if len(c.holds) > 0 && c.synced {
				c.commit()
			}
			c.holds = map[string]int64{}
		}
		req := JoinRequest{
			Group: "g", MemberID: c.id, InstanceID: c.instance, ClientID: c.name, ProtocolType: "consumer",
			Protocols:      []GroupProtocol{{"p", subscription(1, c.topics, c.partitions()...)}},
			SessionTimeout: c.session, RebalanceTimeout: c.rebalance, RequireMemberID: w.rng.IntN(4) > 0, SkipAssignment: c.skips,
		}
		c.synced, c.stop, c.asked = false, stop, c.topics
		e := w.e
		c.join = begin(func() (JoinResponse, error) { return e.Groups().Join(ctx, req) })
		return
	}
	req := SyncRequest{Group: "g", MemberID: c.id, InstanceID: c.instance, Generation: c.gen, ProtocolType: "consumer", Protocol: "p"}
	if c.leader && !c.skip {
		req.Assignments = w.assign(c)
		sent := map[string][]byte{}
		for i, a := range req.Assignments {
			sent[cmp.Or(c.leads[i].InstanceID, a.MemberID)] = a.Assignment // a static member may get it under another id
		}
		w.sent[c.gen] = append(w.sent[c.gen], sent)
	}
	c.stop = stop
	e := w.e
	c.sync = begin(func() (SyncResponse, error) { return e.Groups().Sync(ctx, req) })
}

// assign is what a leader makes of its members: everybody's partitions move with each
// generation. In a cooperative group what somebody keeps is given to nobody else.
func (w *classicWorld) assign(c *classicClient) (list []SyncAssignment) {
	given := map[string]map[string]bool{}
	kept := map[string]string{}
	var all []consumerSubscription
	for _, m := range c.leads {
		s, err := parseConsumerSubscription(m.Metadata)
		if err != nil {
			w.fail("metadata of %s: %v", m.MemberID, err)
		}
		all = append(all, s)
		for key := range keysOf(s.owned) {
			kept[key] = m.MemberID
		}
	}
	for name, t := range w.topics {
		var takers []string
		for i, m := range c.leads {
			if slices.Contains(all[i].topics, name) {
				takers = append(takers, m.MemberID)
			}
		}
		for p := range t.Partitions() {
			if len(takers) == 0 {
				break
			}
			key, to := fmt.Sprintf("%s/%d", name, p), takers[(p+int(c.gen/3))%len(takers)]
			if from := kept[key]; w.coop && from != "" && from != to {
				continue // when it is free
			}
			if given[to] == nil {
				given[to] = map[string]bool{}
			}
			given[to][key] = true
		}
	}
	for _, m := range c.leads {
		list = append(list, SyncAssignment{m.MemberID, appendConsumerAssignment(nil, 1, partsOf(maps.Keys(given[m.MemberID])))})
	}
	return list
}

// receive takes in answers to calls that waited. Some are lost.
func (c *classicClient) receive() {
	w := c.w
	if c.join != nil {
		select {
		case <-c.join.done:
		default:
			return
		}
		j := c.join
		c.drop()
		if w.lossy() {
			w.note("%s: answer to Join lost", c.name)
			return
		}
		if c.answered("Join", j.err, j.at) {
			r := j.resp
			c.id, c.gen, c.leads, c.leader, c.skip = r.MemberID, r.Generation, r.Members, r.Leader == r.MemberID, r.SkipAssignment
			// Where the server assigns, it may have been asked to give up something by an answer
			// that got lost: its time runs from when all was well.
			if c.mustJoin = !slices.Equal(c.topics, c.asked); r.Leader != "" || len(c.holds) == 0 {
				c.good = j.at
			}
			w.note("%s is %s in generation %d, leader %q", c.name, c.id, c.gen, r.Leader)
			if leader, known := w.leaders[c.gen]; r.Leader != "" && !c.skip && len(r.Members) > 0 {
				if known && leader != r.MemberID {
					w.fail("generation %d has two leaders, %s and %s", c.gen, leader, r.MemberID)
				}
				w.leaders[c.gen] = r.MemberID
				w.rest.generations++
			}
		}
		return
	}
	if c.sync == nil {
		return
	}
	select {
	case <-c.sync.done:
	default:
		return
	}
	s := c.sync
	c.drop()
	if s.err == nil {
		w.assigned(c, s.resp.Assignment)
	}
	if w.lossy() || !time.Now().Before(s.at.Add(c.session)) { // or looked at too late
		w.note("%s: answer to Sync lost", c.name)
		return
	}
	if c.answered("Sync", s.err, s.at) {
		c.take(s.resp.Assignment, s.at)
	}
}

// assigned checks that in one generation all hear what one call of its leader said.
func (w *classicWorld) assigned(c *classicClient, assignment []byte) {
	if w.kind != GroupTypeClassic || len(w.sent[c.gen]) == 0 {
		return // the server assigns, and may assign more within an epoch
	}
	if w.got[c.gen] == nil {
		w.got[c.gen] = map[string][]byte{}
	}
	w.got[c.gen][cmp.Or(c.instance, c.id)] = assignment
	for _, sent := range w.sent[c.gen] {
		matches := true
		for id, b := range w.got[c.gen] {
			matches = matches && bytes.Equal(sent[id], b)
		}
		if matches {
			return
		}
	}
	w.fail("in generation %d members were assigned %x, leaders sent %x", c.gen, w.got[c.gen], w.sent[c.gen])
}

// take makes the client hold what it was assigned.
func (c *classicClient) take(assignment []byte, at time.Time) {
	w := c.w
	list, err := parseConsumerAssignment(assignment)
	if err != nil {
		w.fail("assignment of %s: %v", c.name, err)
	}
	keys := keysOf(list)
	c.synced = true
	revoked := false
	for key := range c.holds {
		revoked = revoked || !keys[key]
	}
	if revoked {
		c.commit()
		if !c.synced { // refused: it has lost everything
			return
		}
		for key := range c.holds {
			if !keys[key] {
				delete(c.holds, key)
				w.rest.moved++
			}
		}
		c.mustJoin = true
	}
	c.begin(keys)
	if !revoked {
		c.good = at
	}
	w.note("%s holds %v", c.name, slices.Sorted(maps.Keys(c.holds)))
}

// begin reads from where the group is, in partitions that are new.
func (c *classicClient) begin(keys map[string]bool) {
	for key := range keys {
		if _, ok := c.holds[key]; !ok {
			c.holds[key] = c.w.committed[key]
		}
	}
}

func (w *classicWorld) lossy() bool {
	lost := w.rng.IntN(12) == 0
	if lost {
		w.saw.lost++
	}
	return lost
}

func (c *classicClient) heartbeat() {
	w := c.w
	if !c.synced || c.join != nil || c.sync != nil {
		return
	}
	if w.lossy() {
		return
	}
	err := w.e.Groups().ClassicHeartbeat(context.Background(), ClassicHeartbeatRequest{Group: "g", MemberID: c.id, InstanceID: c.instance, Generation: c.gen})
	if w.lossy() {
		return
	}
	if c.answered("heartbeat", err, time.Now()) && !c.mustJoin {
		c.good = time.Now()
	}
}

// commit commits all positions.
func (c *classicClient) commit() {
	w := c.w
	req := CommitRequest{Group: "g", MemberID: c.id, MemberEpoch: c.gen, InstanceID: c.instance}
	for key, position := range c.holds {
		p := partsOf(slices.Values([]string{key}))[0]
		req.Offsets = append(req.Offsets, at(p.topic, p.partitions[0], position))
	}
	if len(req.Offsets) == 0 || c.gen <= 0 {
		return
	}
	w.ghosts = slices.DeleteFunc(w.ghosts, func(g CommitRequest) bool { // what it sent before does not come after
		return g.MemberID == c.id && g.MemberEpoch == c.gen
	})
	if w.rng.IntN(3) == 0 {
		w.ghosts = append(w.ghosts, req)
	}
	if w.lossy() {
		return
	}
	err := w.e.Groups().Commit(context.Background(), req)
	if w.lossy() {
		return
	}
	if c.answered("commit", err, time.Now()) {
		for _, o := range req.Offsets {
			w.committed[fmt.Sprintf("%s/%d", o.Topic, o.Partition)] = o.Offset
		}
	}
}

// ghost has a commit arrive that was sent before its member went on to something else.
func (w *classicWorld) ghost() {
	if len(w.ghosts) == 0 {
		return
	}
	i := w.rng.IntN(len(w.ghosts))
	req := w.ghosts[i]
	for _, c := range w.clients {
		if c.id == req.MemberID && c.gen == req.MemberEpoch {
			return // calls of one connection do not overtake each other
		}
	}
	if x := w.group(); x != nil {
		x.mu.Lock()
		m := x.roster.server.members[req.MemberID]
		x.mu.Unlock()
		if m != nil && m.classic == nil {
			return // with an epoch it may commit by an earlier one what it has had since
		}
	}
	w.ghosts = slices.Delete(w.ghosts, i, i+1)
	err := w.e.Groups().Commit(context.Background(), req)
	w.note("a late commit of %s in generation %d, %v: %v", req.MemberID, req.MemberEpoch, req.Offsets, err)
	w.rest.ghosts++
}

// beat is a heartbeat with an epoch.
func (c *classicClient) beat() {
	w := c.w
	req := HeartbeatRequest{Group: "g", MemberID: c.id, InstanceID: c.instance, MemberEpoch: c.gen}
	if c.gen == 0 {
		c.id = fmt.Sprintf("%s.%d", c.name, w.rng.Uint32()) // another process, as far as anybody knows
		req.MemberID, req.Topics, req.SessionTimeout, req.RebalanceTimeout = c.id, c.topics, c.session, c.rebalance
	} else if !c.reported {
		req.Owned = w.ids(c.partitions())
	}
	if w.lossy() {
		c.reported = false
		return
	}
	r, err := w.e.Groups().Heartbeat(context.Background(), req)
	if w.lossy() {
		c.reported = false
		return
	}
	if !c.answered(fmt.Sprintf("heartbeat %+v", r), err, time.Now()) {
		return
	}
	c.gen, c.synced, c.mustJoin, c.reported = r.MemberEpoch, true, false, true
	if r.Assignment == nil {
		c.good = time.Now()
		return
	}
	keys := map[string]bool{}
	for _, tp := range r.Assignment {
		for name, t := range w.topics {
			if t.ID() == tp.Topic {
				maps.Copy(keys, keysOf([]namedParts{{name, tp.Partitions}}))
			}
		}
	}
	if len(c.holds) > 0 {
		c.commit()
		if !c.synced {
			return
		}
	}
	revoked := false
	for key := range c.holds {
		if !keys[key] {
			delete(c.holds, key)
			w.rest.moved++
			revoked = true
		}
	}
	if !revoked { // else the time runs until the group knows that it let go
		c.good = time.Now()
	}
	c.begin(keys)
	c.reported = false
	w.note("%s holds %v", c.name, slices.Sorted(maps.Keys(c.holds)))
}

func (w *classicWorld) ids(list []namedParts) []TopicPartitions {
	out := []TopicPartitions{}
	for _, n := range list {
		out = append(out, TopicPartitions{w.topics[n.topic].ID(), n.partitions})
	}
	return out
}

// clocks has clients notice that they were out of contact for too long.
func (w *classicWorld) clocks() {
	now := time.Now()
	for _, c := range w.clients {
		if c.join != nil {
			select {
			case <-c.join.done:
				if c.join.err == nil && c.join.resp.Leader != "" {
					c.contact, c.good = c.join.at, c.join.at
				}
			default:
				continue // it is waited for
			}
		}
		if len(c.holds) > 0 && (!now.Before(c.contact.Add(c.session)) || !now.Before(c.good.Add(c.rebalance))) {
			w.saw.expired++
			c.lose("out of contact")
		}
	}
}

func (w *classicWorld) newClient() *classicClient {
	c := &classicClient{
		w: w, name: fmt.Sprintf("c%d", w.nextID), holds: map[string]int64{}, mustJoin: true, topics: w.subscription(),
		session: time.Duration(3+w.rng.IntN(5)) * time.Second, skips: w.rng.IntN(2) == 0,
		epochMember: w.epochs && w.rng.IntN(3) == 0,
	}
	c.rebalance = c.session + time.Duration(w.rng.IntN(6))*time.Second
	if w.rng.IntN(3) == 0 {
		c.instance = "i" + c.name
	}
	w.nextID++
	return c
}

func (w *classicWorld) subscription() []string {
	all := []string{"a", "b", "c"}
	w.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return slices.Sorted(slices.Values(all[:1+w.rng.IntN(len(all))]))
}

func (w *classicWorld) step() {
	if len(w.clients) == 0 || w.rng.IntN(40) == 0 && len(w.clients) < 6 {
		w.clients = append(w.clients, w.newClient())
	}
	c := w.clients[w.rng.IntN(len(w.clients))]
	switch n := w.rng.IntN(1000); {
	case n < 550:
		c.act()
	case n < 650:
		for key := range c.holds {
			c.holds[key] += int64(w.rng.IntN(3))
		}
	case n < 850:
		time.Sleep(time.Duration(w.rng.IntN(900)) * time.Millisecond)
	case n < 880:
		c.silent = !c.silent
	case n < 900: // it gives up waiting
		if c.join != nil || c.sync != nil {
			w.saw.lost++
			w.note("%s gives up", c.name)
			c.drop()
		}
	case n < 920: // it leaves, politely or not
		polite := w.rng.IntN(2) == 0 && c.id != "" && !c.silent
		w.note("%s is gone, %v", c.name, polite)
		c.drop()
		if c.lose("it ends"); polite {
			c.goodbye()
		}
		if c.instance != "" && w.rng.IntN(2) == 0 { // and comes back as another process
			w.saw.takenOver++
			c.silent, c.gen = false, 0
			if c.id = ""; w.epochs && w.rng.IntN(3) == 0 {
				c.epochMember = !c.epochMember // the new process speaks the other protocol
			}
			return
		}
		w.clients = slices.DeleteFunc(w.clients, func(o *classicClient) bool { return o == c })
	case n < 935:
		if !c.epochMember { // an epoch member would say so in its next call; that is tested elsewhere
			c.topics, c.mustJoin = w.subscription(), true
		}
	case n < 955:
		w.ghost()
	case n < 965:
		if w.rng.IntN(4) == 0 {
			w.restart()
		}
	}
}

// act does what is next for a client.
func (c *classicClient) act() {
	switch {
	case c.silent:
	case c.epochMember:
		c.beat()
		if c.w.rng.IntN(3) == 0 && c.synced {
			c.commit()
		}
	case c.mustJoin || !c.synced:
		if c.synced && c.w.rng.IntN(2) == 0 {
			c.heartbeat() // it is slow to join
			return
		}
		c.send()
	default:
		c.heartbeat()
		if c.w.rng.IntN(2) == 0 && c.synced && !c.mustJoin {
			c.commit()
		}
	}
}

// goodbye takes a client out of the group; it holds nothing any more.
func (c *classicClient) goodbye() {
	ctx := context.Background()
	if !c.epochMember {
		_, err := c.w.e.Groups().Leave(ctx, LeaveRequest{Group: "g", Members: []LeavingMember{{MemberID: c.id, InstanceID: c.instance}}})
		c.w.note("%s leaves: %v", c.name, err)
		return
	}
	req := HeartbeatRequest{Group: "g", MemberID: c.id, InstanceID: c.instance, MemberEpoch: LeaveEpoch}
	if c.instance != "" && c.w.rng.IntN(2) == 0 {
		req.MemberEpoch = StaticLeaveEpoch
	}
	_, err := c.w.e.Groups().Heartbeat(ctx, req)
	c.w.note("%s leaves with %d: %v", c.name, req.MemberEpoch, err)
}

// check is what must hold at every moment.
func (w *classicWorld) check() {
	synctest.Wait()
	w.clocks()
	w.look()
	for _, c := range w.clients {
		if !c.silent {
			c.receive()
		}
	}
	synctest.Wait()
	w.look()
	owner := map[string]string{}
	for _, c := range w.clients {
		for key := range c.holds {
			if other, taken := owner[key]; taken {
				w.fail("%s is held by %s and %s", key, other, c.name)
			}
			owner[key] = c.name
		}
	}
}

// group is nil when there is none, or it was not loaded.
func (w *classicWorld) group() *group {
	s := w.e.Groups().loadedShard("g")
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups["g"]
}

// look looks into the group.
func (w *classicWorld) look() {
	list, err := w.e.Groups().Committed(context.Background(), "g", nil, false)
	if err != nil {
		w.fail("committed offsets: %v", err)
	}
	for _, o := range list {
		key := fmt.Sprintf("%s/%d", o.Topic, o.Partition)
		offset := o.Offset
		if o.Lost != nil { // nothing is in the partitions: the position is what was committed
			offset = o.Lost.Offset
		}
		if before := w.committed[key]; offset < before {
			w.fail("%s was committed at %d, and goes back to %d", key, before, offset)
		}
		w.committed[key] = offset
	}
	x := w.group()
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := &x.roster
	if len(r.server.members) > 0 && len(r.classic.members) > 0 {
		w.fail("members of both states")
	}
	epochs := 0
	for _, m := range r.server.members {
		if m.classic == nil {
			epochs++
		}
	}
	if len(r.server.members) > 0 && epochs == 0 {
		w.fail("the server assigns for classic members only")
	}
	if c := r.classic; *c.epoch < c.generation || (c.phase == GroupStable || c.phase == GroupCompletingRebalance) && c.members[c.leader] == nil {
		w.fail("epoch %d, generation %d, %s, leader %q of %v", *c.epoch, c.generation, c.phase, c.leader, slices.Sorted(maps.Keys(c.members)))
	}
	if due, ok := r.classic.due(); ok && due.Before(time.Now().Add(-tickInterval)) {
		w.fail("what was due at %v is not done: %v: %+v", due, time.Now(), *r.classic)
	}
	if r.kind != w.kind {
		if w.kind != "" && r.count() > 0 {
			if r.kind == GroupTypeConsumer {
				w.rest.upgrades++
			} else {
				w.rest.downgrades++
			}
		}
		w.note("the group is %s", r.kind)
		w.kind = r.kind
	}
}

// settle lets everybody who is not dead go on until all is quiet: everything that is
// subscribed to is held.
func (w *classicWorld) settle() {
	for _, c := range w.clients {
		if c.silent {
			c.drop()
		}
	}
	w.clients = slices.DeleteFunc(w.clients, func(c *classicClient) bool { return c.silent })
	quiet := 0
	for i := 0; quiet < 3; i++ {
		if i > 300 {
			for _, c := range w.clients {
				w.note("%s (%s, generation %d): subscribes to %v, holds %v, synced %v, joins %v", c.name, c.id, c.gen, c.topics, c.holds, c.synced, c.mustJoin)
			}
			d, err := w.e.Groups().Describe(context.Background(), "g")
			w.fail("no end after %d rounds: %+v, %v", i, d, err)
		}
		before := len(w.log)
		all := map[string]bool{}
		done := true
		for _, c := range w.clients {
			c.act()
			w.check()
			done = done && c.synced && !c.mustJoin && c.join == nil && c.sync == nil
		}
		for _, c := range w.clients {
			for key := range c.holds {
				all[key] = true
			}
		}
		for _, c := range w.clients {
			for _, name := range c.topics {
				for p := range w.topics[name].Partitions() {
					done = done && all[fmt.Sprintf("%s/%d", name, p)]
				}
			}
		}
		_ = before
		if quiet++; !done {
			quiet = 0
		}
		time.Sleep(900 * time.Millisecond)
		w.check()
	}
	if w.kind == GroupTypeClassic {
		for _, c := range w.clients {
			if c.gen != w.clients[0].gen {
				w.fail("generations %d and %d", c.gen, w.clients[0].gen)
			}
		}
	}
}

func TestClassicModel(t *testing.T) {
	sums := map[string]int{}
	for seed := range uint64(testcount.N(100)) {
		synctest.Test(t, func(t *testing.T) {
			w := &classicWorld{
				t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 11)), fs: vfs.NewMem(), coop: seed%2 == 0, epochs: seed%4 > 1,
				committed: map[string]int64{}, sent: map[int32][]map[string][]byte{}, leaders: map[int32]string{}, got: map[int32]map[string][]byte{},
			}
			w.open()
			defer func() {
				for _, c := range w.clients {
					c.drop()
				}
				w.e.Close()
			}()
			for i, name := range []string{"a", "b", "c"} {
				w.topics[name] = newTopic(t, w.e, name, 1+int(seed+uint64(i))%3)
			}
			for range 400 {
				w.step()
				w.check()
			}
			w.settle()
			for key, n := range map[string]int{
				"lost": w.saw.lost, "expired": w.saw.expired, "fenced": w.saw.fenced, "taken over": w.saw.takenOver, "moved": w.rest.moved,
				"restarts": w.rest.restarts, "upgrades": w.rest.upgrades, "downgrades": w.rest.downgrades, "late commits": w.rest.ghosts,
				"generations": w.rest.generations,
			} {
				sums[key] += n
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%v", sums)
	for key, n := range sums {
		if n == 0 {
			t.Errorf("nothing was %s: the test shows nothing", key)
		}
	}
}
