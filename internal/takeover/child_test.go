package takeover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/raftrepl"
)

// nodeVariable in the environment makes a test binary a node.
const nodeVariable = "EMBEDLOG_TAKEOVER_NODE"

func TestMain(m *testing.M) {
	if config := os.Getenv(nodeVariable); config != "" {
		if err := serveNode(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type nodeConfig struct {
	Node          int32
	Dir           string
	Peers         map[int32]string
	CA, Cert, Key []byte
}

// What a node is asked to do, a line each.
const (
	doReady = "say whether the graphs run"
	doOwner = "say who owns a task"
	doCheck = "compare what it answers with the log"
	doFeed  = "append records"
	doRest  = "append no more"
)

type question struct {
	Do    string
	Graph string `json:",omitempty"`
	Task  int32  `json:",omitempty"`
	First int64  `json:",omitempty"` // of the numbers
}

// line is what a node says: what it begins to append, what was acknowledged, what it has read, and answers.
type line struct {
	Sent, Acked int64   `json:",omitempty"`
	Reads       int     `json:",omitempty"`
	Problem     string  `json:",omitempty"`
	Answer      bool    `json:",omitempty"`
	OK          bool    `json:",omitempty"`
	Node        int32   `json:",omitempty"`
	Error       string  `json:",omitempty"`
	Numbers     []int64 `json:",omitempty"` // that the log has
}

// node is one that runs in this process.
type node struct {
	db  *embedlog.DB
	g   *graphs
	mu  sync.Mutex
	out *json.Encoder
}

func (n *node) say(l line) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out.Encode(l) // when nobody listens any more, nobody asks either
}

// serveNode is a node, until its input ends.
func serveNode(config string) (err error) {
	var c nodeConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	replication, err := raftrepl.New(raftrepl.Config{
		Node: c.Node, Cluster: "takeover", Listen: c.Peers[c.Node], Peers: c.Peers, Timing: raftrepl.FastTiming,
		TLS: raftrepl.TLS{CA: c.CA, Cert: c.Cert, Key: c.Key},
	})
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("EMBEDLOG_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", c.Node)
	}
	n := &node{out: json.NewEncoder(os.Stdout)}
	n.db, err = embedlog.Open(c.Dir, &embedlog.Options{Replication: replication, ReplicationFactor: len(c.Peers), LockTimeout: patience, Logger: log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var begun sync.WaitGroup
	started, rest := make(chan struct{}), func() {}
	begun.Go(func() {
		for ctx.Err() == nil {
			g, err := newGraphs(ctx, n.db, log)
			if err == nil {
				n.g = g
				close(started)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	defer func() {
		cancel()
		begun.Wait()
		err = errors.Join(err, n.db.Close())
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		select {
		case <-started:
		default:
			n.say(line{Answer: true, Error: "the graphs do not run yet"})
			continue
		}
		switch q.Do {
		case doReady:
			n.say(line{Answer: true, OK: true})
		case doOwner:
			n.say(line{Answer: true, OK: true, Node: owner(n.db, q.Graph, q.Task)})
		case doCheck:
			if numbers, err := n.check(ctx); err != nil {
				n.say(line{Answer: true, Error: err.Error()})
			} else {
				n.say(line{Answer: true, OK: true, Numbers: numbers})
			}
		case doFeed:
			feeding, stop := context.WithCancel(ctx)
			done := make(chan struct{})
			rest = func() { stop(); <-done }
			go func() { defer close(done); n.feed(feeding, q.First) }()
			n.say(line{Answer: true, OK: true})
		case doRest:
			rest()
			n.say(line{Answer: true, OK: true})
		}
	}
	return nil
}

// feed appends records of a key that nobody else has, and reads the key's row.
func (n *node) feed(ctx context.Context, first int64) {
	key := fmt.Sprint("k", first)
	var least int64
	for i := first; ctx.Err() == nil; i++ {
		n.say(line{Sent: i})
		one, cancel := context.WithTimeout(context.Background(), patience) // it is not cut short
		_, err := n.g.orders.Produce(one, embedlog.Record{Key: []byte(key), Value: encoded(i)})
		if err == nil {
			least += i
			n.say(line{Acked: i})
		}
		v, _, err := n.g.byKey.Get(one, key)
		cancel()
		switch {
		case err == nil && v < least:
			n.say(line{Problem: fmt.Sprintf("%s is %d, and at least %d was acknowledged", key, v, least)})
		case err == nil:
			least = v
			n.say(line{Reads: 1})
		case !again(err):
			n.say(line{Problem: fmt.Sprintf("get %s: %v", key, err)})
		}
	}
}

// check compares views and sinks with the log, and returns what that has.
func (n *node) check(ctx context.Context) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := errors.Join(n.g.flat.Err(), n.g.deep.Err()); err != nil {
		return nil, fmt.Errorf("%w: %w", errWrong, err)
	}
	want, err := read(ctx, n.g.orders)
	if err != nil {
		return nil, err
	}
	if err := n.g.compare(ctx, want); err != nil {
		return nil, err
	}
	got, err := read(ctx, n.g.out)
	if err != nil {
		return nil, err
	}
	if err := got.appendedOf(want); err != nil {
		return nil, err
	}
	for number, times := range want.times {
		if times != 1 {
			return nil, fmt.Errorf("%w: %d is there %d times", errWrong, number, times)
		}
	}
	return slices.Collect(maps.Keys(want.times)), nil
}

// child is a node as who started it sees it.
type child struct {
	cmd     *exec.Cmd
	to      *json.Encoder
	close   func() error
	answers chan line
}

// startChild starts a node. It hears what the node says but answers.
func startChild(c nodeConfig, hears func(line)) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), nodeVariable+"="+string(config))
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
	p := &child{cmd: cmd, to: json.NewEncoder(in), close: in.Close, answers: make(chan line, 1)}
	go func() {
		defer close(p.answers)
		for from := json.NewDecoder(out); ; {
			var l line
			if from.Decode(&l) != nil {
				return
			}
			if l.Answer {
				p.answers <- l
			} else {
				hears(l)
			}
		}
	}()
	return p, nil
}

// ask waits for one answer.
func (p *child) ask(q question) (line, error) {
	if err := p.to.Encode(q); err != nil {
		return line{}, err
	}
	select {
	case l, ok := <-p.answers:
		if !ok {
			return l, errors.New("the process has ended")
		}
		if !l.OK {
			return l, errors.New(l.Error)
		}
		return l, nil
	case <-time.After(patience):
		return line{}, errors.New("it does not answer")
	}
}

// kill is kill -9. What it has said was heard when it returns.
func (p *child) kill() {
	p.cmd.Process.Kill()
	for range p.answers {
	}
	p.cmd.Wait()
}

// end has the node close its database.
func (p *child) end() error {
	p.close()
	defer time.AfterFunc(patience, func() { p.cmd.Process.Kill() }).Stop()
	for range p.answers {
	}
	return p.cmd.Wait()
}
