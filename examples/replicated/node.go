package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/raftrepl"
)

// nodeEnv has the configuration of a process that is a node.
const nodeEnv = "EMBEDLOG_EXAMPLE_NODE"

type nodeConfig struct {
	Node          int32
	Dir           string
	Listen, Join  string
	CA, Cert, Key []byte
}

// What a node can be asked to do, a line of JSON each.
const (
	doStatus  = "say how it is"
	doAdd     = "add a node"
	doFactor  = "set the replication factor"
	doProduce = "produce a record"
	doScan    = "read its replica"
)

type request struct {
	Do      string
	Node    int32
	Address string
	Factor  int
	Number  int
}

type reply struct {
	Again   bool   // nothing was done: this or another node may be asked again
	Unknown bool   // it may have been done
	Error   string // why
	Alive   []int32
	Leaders map[int32]int32 // by partition
	InSync  map[int32]int   // how many, of partitions that this node leads
	Why     []string        // what is not well
	Records []string
}

// serveNode is a node: it has the database open and does what it is asked, until its input ends.
func serveNode(ctx context.Context, config string, in io.Reader, out io.Writer) (err error) {
	var c nodeConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	node, err := raftrepl.New(raftrepl.Config{
		Node: c.Node, Cluster: clusterName, Listen: c.Listen, Join: c.Join, Timing: raftrepl.FastTiming,
		TLS: raftrepl.TLS{CA: c.CA, Cert: c.Cert, Key: c.Key},
	})
	if err != nil {
		return err
	}
	db, err := embedlog.Open(c.Dir, &embedlog.Options{Replication: node, LockTimeout: patience})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	to := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		if err := to.Encode(answer(ctx, db, q)); err != nil {
			return err
		}
	}
	return nil
}

func answer(ctx context.Context, db *embedlog.DB, q request) (r reply) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var err error
	switch q.Do {
	case doStatus:
		r = status(db)
	case doAdd:
		err = db.Cluster().AddNode(ctx, q.Node, q.Address)
	case doFactor:
		err = db.Cluster().SetReplicationFactor(ctx, topic, q.Factor)
	case doProduce:
		var t *embedlog.Topic
		if t, err = db.Topic(topic); err == nil {
			_, err = t.Produce(ctx, record(q.Number))
		}
	case doScan:
		r.Records, err = scan(ctx, db)
	}
	if err != nil {
		r.Error = err.Error()
		r.Again = embedlog.IsRetriable(err) || q.Do != doProduce || errors.Is(err, embedlog.ErrUnknownTopic)
		r.Unknown = !r.Again
	}
	return r
}

func status(db *embedlog.DB) reply {
	r := reply{Leaders: make(map[int32]int32), InSync: make(map[int32]int)}
	for _, n := range db.Cluster().Nodes() {
		if n.Alive && !n.Directory.IsZero() {
			r.Alive = append(r.Alive, n.ID)
		}
	}
	for _, l := range db.Cluster().Status() {
		if l.Reason != "" {
			r.Why = append(r.Why, fmt.Sprintf("node %d says of %q %d: %s", db.Cluster().Node(), l.Topic, l.Partition, l.Reason))
		}
		if l.Topic == topic {
			r.Leaders[l.Partition] = l.Leader
			r.InSync[l.Partition] = len(l.InSync)
		}
	}
	return r
}

// scan reads this node's own replica.
func scan(ctx context.Context, db *embedlog.DB) (list []string, err error) {
	t, err := db.Topic(topic)
	if err != nil {
		return nil, err
	}
	for p := range int32(partitions) {
		for rec, err := range t.Scan(ctx, &embedlog.ScanOptions{Partitions: []int32{p}}) {
			if err != nil {
				return nil, err
			}
			list = append(list, fmt.Sprintf("%d/%d %s", rec.Partition, rec.Offset, rec.Value))
		}
	}
	return list, nil
}

// process is a node as who started it sees it.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	to  *json.Encoder
	out *json.Decoder
	// gone says that it has ended before it was told to.
	gone bool
}

func startProcess(ctx context.Context, c nodeConfig) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd: cmd, in: in, to: json.NewEncoder(in), out: json.NewDecoder(out)}, nil
}

// ask sends one request and waits for its answer. An error says that the process has ended:
// it may have done what was sent.
func (p *process) ask(q request) (r reply, sent bool, err error) {
	if err = p.to.Encode(q); err == nil {
		sent, err = true, p.out.Decode(&r)
	}
	if err != nil {
		p.gone, r = true, reply{Unknown: true, Error: "the node is gone: " + err.Error()}
	}
	return r, sent, err
}

func (p *process) kill() error { return p.cmd.Process.Kill() }

// wait waits for the end of a process that was killed.
func (p *process) wait() { _ = p.cmd.Wait() }

// end has the process close its database.
func (p *process) end() error {
	err := p.in.Close()
	timer := time.AfterFunc(patience, func() { _ = p.kill() })
	defer timer.Stop()
	return errors.Join(err, p.cmd.Wait())
}
