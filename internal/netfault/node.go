//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/history"
	"github.com/x/embedlog/internal/soak"
	"github.com/x/embedlog/kafka"
	"github.com/x/embedlog/raftrepl"
)

// nodeVariable in the environment makes a process a node, clientsVariable the Kafka clients.
const (
	nodeVariable    = "EMBEDLOG_NETFAULT_NODE"
	clientsVariable = "EMBEDLOG_NETFAULT_CLIENTS"
)

const clusterName = "netfault"

// nodeSpec is what a node is told.
type nodeSpec struct {
	Node, Life    int32
	Dir           string // of the database, on the node's own disk
	Notes         string // history file, on the host's disk
	IP            string
	Peers         map[int32]string
	CA, Cert, Key []byte
	Seed          uint64
	Partitions    int
	RecordBytes   int
	Rate          int // records a second of its idempotent producers
	Fast          bool
}

// What the parent tells a node, a word a line. The end of the input closes the database.
const (
	wordMake = "make" // make the topics
	wordWork = "work" // begin the load
	wordRest = "rest" // end the load
)

// report is what a node says, a line of JSON each time.
type report struct {
	Ready  bool         `json:",omitempty"` // it serves
	Done   string       `json:",omitempty"` // the word that was done
	Error  string       `json:",omitempty"` // what makes the run worthless, or is a fault
	Leads  []leadership `json:",omitempty"`
	Behind []string     `json:",omitempty"` // logs that this node leads and not all others have whole, and why
	Status bool         `json:",omitempty"` // Leads and Behind are said
}

// leadership is who leads a log as a node knows it.
type leadership struct {
	Log           string
	Leader, Epoch int32
}

const (
	peerPort  = "9192"
	kafkaPort = "9092"
)

// serveNode is a node's process.
func serveNode(text string) error {
	var s nodeSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", s.Node, "life", s.Life)
	var mu sync.Mutex
	to := json.NewEncoder(os.Stdout)
	say := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		_ = to.Encode(r) // a parent that is gone has closed the input, too
	}
	timing := raftrepl.DefaultTiming
	if s.Fast {
		timing = raftrepl.FastTiming
	}
	node, err := raftrepl.New(raftrepl.Config{
		Node: s.Node, Cluster: clusterName, Listen: net.JoinHostPort(s.IP, peerPort), Peers: s.Peers,
		TLS: raftrepl.TLS{CA: s.CA, Cert: s.Cert, Key: s.Key}, Timing: timing, Logger: logger,
	})
	if err != nil {
		return err
	}
	db, err := embedlog.Open(s.Dir, &embedlog.Options{Replication: node, LockTimeout: 30 * time.Second, Logger: logger})
	if err != nil {
		return err
	}
	defer db.Close()
	server, err := kafka.Serve(db, &kafka.Options{
		Listeners:     []kafka.Listener{{Address: net.JoinHostPort(s.IP, kafkaPort)}},
		AllowInsecure: true, // the namespaces have no way out
		Logger:        logger,
	})
	if err != nil {
		return err
	}
	defer server.Close()
	notes, err := history.OpenWriter(s.Notes)
	if err != nil {
		return err
	}
	defer notes.Close()
	say(report{Ready: true})

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var background sync.WaitGroup
	background.Go(func() {
		for ctx.Err() == nil {
			say(status(db))
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	work, rest := context.WithCancel(ctx)
	defer rest()
	var loads sync.WaitGroup
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch word := lines.Text(); word {
		case wordMake:
			if err := makeTopics(ctx, db, s.Partitions); err != nil {
				say(report{Error: err.Error()})
			}
			say(report{Done: word})
		case wordWork:
			l := &load{spec: &s, db: db, history: notes, logger: logger, fail: func(err error) { say(report{Error: err.Error()}) }}
			loads.Go(func() { l.run(work) })
		case wordRest:
			rest()
			loads.Wait()
			say(report{Done: word})
		}
	}
	rest()
	loads.Wait()
	cancel()
	background.Wait()
	return errors.Join(server.Close(), db.Close())
}

// makeTopics makes those that package soak works on. All are durable: what the other levels
// promise of a node that was killed is less.
func makeTopics(ctx context.Context, db *embedlog.DB, partitions int) error {
	sent, copied := soak.Topics()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, topic := range append(sent, copied) {
		for {
			_, err := db.EnsureTopic(ctx, topic, &embedlog.TopicConfig{
				Partitions: partitions, ReplicationFactor: nodes, Durability: embedlog.Durable, SegmentBytes: 4 << 20, Retention: -1,
			})
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("make topic %s: %w", topic, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// status is who leads what, and what is not everywhere yet.
func status(db *embedlog.DB) report {
	r := report{Status: true}
	self := db.Cluster().Node()
	for _, l := range db.Cluster().Status() {
		name := "meta"
		if l.Topic != "" {
			name = l.Topic + "/" + strconv.Itoa(int(l.Partition))
		}
		r.Leads = append(r.Leads, leadership{name, l.Leader, l.Epoch})
		if l.Leader != self {
			continue
		}
		if len(l.InSync) < len(l.Replicas) || l.Reason != "" {
			r.Behind = append(r.Behind, fmt.Sprintf("%s: in sync %v of %v %s", name, l.InSync, l.Replicas, l.Reason))
		}
		for _, m := range l.Members {
			if m.Lag > 0 {
				r.Behind = append(r.Behind, fmt.Sprintf("%s: node %d lacks %d entries", name, m.Node, m.Lag))
			}
		}
	}
	return r
}

// clientsSpec is what the Kafka clients are told.
type clientsSpec struct {
	Dir         string
	Servers     string
	Partitions  int
	RecordBytes int
	Rate        int
	Seed        uint64
	Beside      []string
}

// verdict is what they say in the end, in a line of JSON.
type verdict struct {
	Error string // why nothing can be said
	Bad   int
	Text  string
}

// serveClients lets them work until the input ends, and then checks.
func serveClients(text string) error {
	var s clientsSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	end := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		// "end" ends the work; the end of the input without it means that the parent is gone.
		lines := bufio.NewScanner(os.Stdin)
		if lines.Scan() {
			close(end)
			for lines.Scan() {
			}
		}
		cancel()
	}()
	res, err := soak.Run(ctx, soak.Config{
		Dir: filepath.Join(s.Dir, "clients"), Time: 24 * time.Hour, End: end, Server: s.Servers, Rate: s.Rate,
		RecordBytes: s.RecordBytes, Partitions: s.Partitions, Seed: s.Seed, Log: os.Stderr, Verbose: true,
		Beside: func() ([]string, error) { return s.Beside, nil },
	})
	var v verdict
	if err != nil {
		// What clients saw until then may say more than that the end did not come.
		v = verdictOf(history.Check(history.OpenFiles(append([]string{filepath.Join(s.Dir, "clients", "history.jsonl")}, s.Beside...)...), nil))
		v.Error = strings.TrimSpace(err.Error() + " " + v.Error)
	} else {
		v = verdictOf(res.Report, nil)
		fmt.Fprintf(os.Stderr, "%v", res) // with the errors that clients met, which are no faults
	}
	return json.NewEncoder(os.Stdout).Encode(v)
}

// verdictOf is what a check of all histories says.
func verdictOf(r *history.Report, err error) verdict {
	if err != nil {
		return verdict{Error: err.Error()}
	}
	return verdict{Bad: len(r.Bad()), Text: r.String()}
}
