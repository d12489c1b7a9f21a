package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/sock"
)

// What flags and a file can say wrong about a cluster, and how it is said.
func TestClusterConfig(t *testing.T) {
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	for _, line := range []string{"init shop", "issue 1 2"} {
		if r := runHere(t, "", append(strings.Fields("cluster certs "+line), "--dir", certs)...); r.code != 0 {
			t.Fatalf("%s: %+v", line, r)
		}
	}
	tls := func(ca, cert, key string) string {
		return " --peer-ca " + filepath.Join(certs, ca) + " --peer-cert " + filepath.Join(certs, cert) + " --peer-key " + filepath.Join(certs, key)
	}
	for _, row := range []struct {
		name, flags string
		want        string // in what is printed: the configuration, or the error
		code        int
	}{
		{"alone", "", "node = 0", 0},
		{"the first of a cluster", "--node 1 --cluster shop --peer-listen :0 --peer-advertise h:1", "node = 1", 0},
		{"three", "--node 2 --cluster shop --peers 1=127.0.0.1:1,2=127.0.0.1:2,3=127.0.0.1:3", `peers = ["1=127.0.0.1:1", "2=127.0.0.1:2", "3=127.0.0.1:3"]`, 0},
		{"one that joins", "--node 2 --cluster shop --peer-listen 127.0.0.1:2 --join h:1 --timing fast --replication-factor 2", `timing = "fast"`, 0},
		{"preferred leaders", "--node 1 --cluster shop --peer-listen :1 --peer-advertise h:1 --preferred-leaders -1s", `preferred-leaders = "-1s"`, 0},
		{"preferred leaders of no cluster", "--preferred-leaders 1m", "cluster.node is missing", 2},
		{"elsewhere, with certificates", "--node 1 --cluster shop --peer-listen 192.0.2.1:1" + tls("ca.pem", "node-1.pem", "node-1-key.pem"), "node-1-key.pem", 0},

		{"no node", "--cluster shop --peer-listen :1", "cluster.node is missing", 2},
		{"a node below 1", "--node -1 --cluster shop --peer-listen :1", "cluster.node is -1", 2},
		{"no number", "--node x", "--node", 2},
		{"no name", "--node 1 --peer-listen :1", "cluster.name is missing", 2},
		{"a bad name", "--node 1 --cluster a/b --peer-listen :1", "cluster.name: cluster name \"a/b\"", 2},
		{"nowhere to listen", "--node 1 --cluster shop", "cluster.peer-listen is missing", 2},
		{"not among the peers", "--node 4 --cluster shop --peers 1=127.0.0.1:1", "node 4 is not among the peers", 2},
		{"no address", "--node 1 --cluster shop --peer-listen here", `cluster.peer-listen "here" is not host:port`, 2},
		{"a port that nobody knows", "--node 1 --cluster shop --peer-listen :0", `cluster.peer-advertise "127.0.0.1:0" has port "0"`, 2},
		{"a peer without a number", "--node 1 --cluster shop --peers h:1", "a peer is NODE=HOST:PORT", 2},
		{"a peer twice", "--node 1 --cluster shop --peers 1=h:1,1=h:2", "node 1 twice", 2},
		{"peers at one address", "--node 1 --cluster shop --peer-listen :1 --peers 2=h:1,3=h:1", `cluster.peers[3] "h:1" is node 2's, too`, 2},
		{"both peers and join", "--node 1 --cluster shop --peers 1=127.0.0.1:1 --join h:1", "exclude each other", 2},
		{"a timing of one's own", "--node 1 --cluster shop --peer-listen :1 --timing slow", "cluster.timing is default or fast", 2},
		{"too many replicas", "--node 1 --cluster shop --peer-listen :1 --replication-factor 16", "cluster.replication-factor is 16", 2},
		{"elsewhere without certificates", "--node 1 --cluster shop --peer-listen 192.0.2.1:1", "embedlog cluster certs", 2},
		{"half of the files", "--node 1 --cluster shop --peer-listen :1 --peer-ca ca.pem", "belong together", 2},
		{"a file that is not there", "--node 1 --cluster shop --peer-listen :1" + tls("none.pem", "node-1.pem", "node-1-key.pem"), "none.pem", 2},
		{"another node's certificate", "--node 1 --cluster shop --peer-listen :1" + tls("ca.pem", "node-2.pem", "node-2-key.pem"), "it is of node 2, this is node 1", 2},
		{"another cluster's", "--node 1 --cluster other --peer-listen :1" + tls("ca.pem", "node-1.pem", "node-1-key.pem"), `cluster "shop"`, 2},
	} {
		data := filepath.Join(dir, "never")
		r := runHere(t, "", append(strings.Fields("serve --print-config --data "+data), strings.Fields(row.flags)...)...)
		if r.code != row.code || !strings.Contains(r.stdout+r.stderr, row.want) || strings.Contains(r.stderr, "raftrepl") {
			t.Errorf("%s: exit code %d\n%s%s\nwant %d and %q", row.name, r.code, r.stdout, r.stderr, row.code, row.want)
		}
		if _, err := os.Stat(data); err == nil {
			t.Fatalf("%s: the directory was made", row.name)
		}
	}
}

// Files of certificates are made once, keys for their owner alone.
func TestClusterCerts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	for _, row := range []struct {
		line, want string
		code       int
	}{
		{"issue 1", "certs init", 5},
		{"init a/b", "letters, digits", 2},
		{"init shop --format json", `{"cluster":"shop","files":[`, 0},
		{"init shop", "is there already, and stays", 1},
		{"issue 0", "a number from 1 on", 2},
		{"issue 1 2", "node-2.pem", 0},
		{"issue 3 2", "node-2-key.pem is there already", 1},
	} {
		r := runHere(t, "", append(strings.Fields("cluster certs "+row.line), "--dir", dir)...)
		if r.code != row.code || !strings.Contains(r.stdout+r.stderr, row.want) {
			t.Errorf("%s: %+v, want exit code %d and %q", row.line, r, row.code, row.want)
		}
	}
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o644, "ca-key.pem": 0o600, "node-1.pem": 0o644, "node-1-key.pem": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// What asks a node says so where none runs, and a node's directory is not opened without its peers.
func TestClusterNeedsANode(t *testing.T) {
	alone := filepath.Join(t.TempDir(), "alone")
	if r := runHere(t, "", "topic", "create", "orders", "--data", alone); r.code != 0 {
		t.Fatal(r)
	}
	for _, row := range []struct {
		line, want string
		code       int
	}{
		{"status", "this asks a node that runs", 1},
		{"drain 1", "this asks a node that runs", 1},
		{"add 2 here", "HOST:PORT", 2},
		{"add two h:1", "a number from 1 on", 2},
		{"transfer-leadership orders", "TOPIC/NUMBER", 2},
		{"reassign orders/0 1 1", "named twice", 2},
		{"set-replication-factor orders 0", "between 1 and 15", 2},
		{"remove", "a node's number", 2},
	} {
		r := runHere(t, "", append(strings.Fields("cluster "+row.line), "--data", alone)...)
		if r.code != row.code || !strings.Contains(r.stderr, row.want) {
			t.Errorf("%s: %+v, want exit code %d and %q", row.line, r, row.code, row.want)
		}
	}
	if r := runHere(t, "", "cluster", "status", "--data", filepath.Join(alone, "none")); r.code != 5 {
		t.Errorf("no directory: %+v", r)
	}
}

// node is serve as a node of a cluster, in this process.
type node struct {
	data  string
	ready ready
	stop  func() ranWith
}

func serveNode(t *testing.T, number int, data string, flags ...string) *node {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	var log bytes.Buffer
	args := append([]string{"serve", "-q", "--data", data, "--node", fmt.Sprint(number), "--cluster", "shop", "--kafka", ":0"}, flags...)
	ended := make(chan ranWith, 1)
	go func() {
		a := &app{stdin: strings.NewReader(""), stdout: in, stderr: &log}
		err := a.execute(ctx, args)
		in.CloseWithError(io.EOF)
		r := ranWith{code: exitCode(err), stderr: log.String()}
		if err != nil {
			r.stderr += err.Error()
		}
		ended <- r
	}()
	n := &node{data: data}
	stopped := false
	n.stop = func() ranWith {
		if stopped {
			return ranWith{}
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { n.stop() })
	if err := json.NewDecoder(out).Decode(&n.ready); err != nil {
		t.Fatalf("node %d: %v: %+v", number, err, n.stop())
	}
	return n
}

// status is the cluster as a node sees it.
func (n *node) status(t *testing.T) (st sock.Cluster) {
	t.Helper()
	r := runHere(t, "", "cluster", "status", "--data", n.data, "--format", "json")
	if err := json.Unmarshal([]byte(r.stdout), &st); err != nil || r.code != 0 {
		t.Fatalf("status: %v: %+v", err, r)
	}
	return st
}

// soon tries again until it is so. Elections take their time.
func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 600 {
		if so() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("it does not come to this: %s", what)
}

// freePort is a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Three nodes begin a cluster; commands go to each of them.
func TestServeCluster(t *testing.T) {
	dir := t.TempDir()
	var peers []string
	for i := 1; i <= 3; i++ {
		peers = append(peers, fmt.Sprintf("%d=%s", i, freePort(t)))
	}
	var nodes []*node
	for i := 1; i <= 3; i++ {
		n := serveNode(t, i, filepath.Join(dir, fmt.Sprint("n", i)), "--timing", "fast", "--peers", strings.Join(peers, ","))
		if n.ready.NodeID != int32(i) || n.ready.Peer != peers[i-1][2:] || len(n.ready.Kafka) != 1 || n.ready.ClusterID == "" {
			t.Fatalf("node %d says %+v", i, n.ready)
		}
		nodes = append(nodes, n)
	}
	// anywhere has a node do it that can: who decides may change at any time.
	anywhere := func(line string) (r ranWith) {
		t.Helper()
		soon(t, line, func() bool {
			for _, n := range nodes {
				if r = runHere(t, "", append(strings.Fields(line), "--data", n.data)...); r.code == 0 {
					return true
				}
			}
			return false
		})
		return r
	}
	anywhere("topic create orders -p 2 --replication-factor 3 --if-not-exists")
	soon(t, "all nodes know who leads, and leaders have two others in sync", func() bool {
		inSync := make(map[int32]int)
		for _, n := range nodes {
			st := n.status(t)
			if len(st.Nodes) != 3 || len(st.Logs) != 3 || st.ClusterID != nodes[0].ready.ClusterID {
				return false
			}
			for _, l := range st.Logs {
				if l.Leader < 1 || len(l.Replicas) != 3 {
					return false
				}
				if l.Topic == "orders" {
					inSync[l.Partition] = max(inSync[l.Partition], len(l.InSync))
				}
			}
		}
		return inSync[0] == 3 && inSync[1] == 3
	})
	r := runHere(t, "", "cluster", "status", "--data", nodes[0].data)
	for _, want := range []string{"node 1 of cluster " + nodes[0].ready.ClusterID + ", 3 nodes", "this one", "orders/1", "metadata", peers[2][2:]} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("status does not say %q but\n%s%s", want, r.stdout, r.stderr)
		}
	}
	r = runHere(t, "", "topic", "describe", "orders", "--data", nodes[1].data)
	if !strings.Contains(r.stdout, "LEADER") || !strings.Contains(r.stdout, "REPLICAS") {
		t.Errorf("describe says\n%s%s", r.stdout, r.stderr)
	}
	for line, code := range map[string]int{"drain 9": 5, "set-replication-factor orders 4": 2, "reassign orders/7 1": 5, "reassign orders/0 9": 2} {
		var r ranWith
		soon(t, line, func() bool {
			for _, n := range nodes {
				if r = runHere(t, "", append(strings.Fields("cluster "+line), "--data", n.data)...); !strings.Contains(r.stderr, "leads") {
					return true
				}
			}
			return false
		})
		if r.code != code {
			t.Errorf("cluster %s: exit code %d, want %d: %s", line, r.code, code, r.stderr)
		}
	}
	// Without the other two nobody can be elected, and the words say why.
	for _, n := range nodes[:2] {
		if r := n.stop(); r.code != 0 {
			t.Errorf("stop: %+v", r)
		}
	}
	soon(t, "the last node says that there is no majority", func() bool {
		r := runHere(t, "", "cluster", "status", "--data", nodes[2].data)
		return strings.Contains(r.stdout, "no majority of votes")
	})
	if r := runHere(t, "", "topic", "list", "--data", nodes[0].data); r.code != 1 || !strings.Contains(r.stderr, "is node 1 of a cluster") {
		t.Errorf("a node's directory, opened alone: %+v", r)
	}
	r = runHere(t, "", "serve", "--data", nodes[0].data)
	if r.code != 1 || !strings.Contains(r.stderr, "serve --node 1") {
		t.Errorf("serve without --node: %+v", r)
	}
}
