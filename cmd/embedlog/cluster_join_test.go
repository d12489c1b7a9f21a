package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// A node that cannot join says why where its operator looks: in status, and not only in the log of the other.
func TestClusterJoinRefused(t *testing.T) {
	dir := t.TempDir()
	first := serveNode(t, 1, filepath.Join(dir, "n1"), "--timing", "fast", "--peer-listen", freePort(t), "--token", "sesame")
	used := filepath.Join(dir, "used")
	if r := runHere(t, "", "topic", "create", "own", "--data", used); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for _, row := range []struct {
		name   string
		number int
		flags  string // a later flag is stronger
		want   string
	}{
		{"another token", 2, "--token other", "its token is not this node's"},
		{"another cluster's name", 2, "--token sesame --cluster shap", `it was started for cluster "shap", this node for "shop"`},
		{"a number that is taken", 1, "--token sesame", "each node has its own"},
		{"nobody there", 2, "--token sesame --join 127.0.0.1:1", "refused"},
	} {
		flags := append([]string{"--timing", "fast", "--peer-listen", freePort(t), "--join", first.ready.Peer}, strings.Fields(row.flags)...)
		n := serveNode(t, row.number, filepath.Join(dir, row.name), flags...)
		soon(t, row.name+": status says "+row.want, func() bool {
			r := runHere(t, "", "cluster", "status", "--data", n.data)
			return strings.Contains(r.stdout, row.want) && strings.Contains(r.stdout, "is in no cluster yet")
		})
		n.stop()
	}

	r := runHere(t, "", "serve", "--data", used, "--kafka", ":0", "--node", "2", "--cluster", "shop", "--peer-listen", freePort(t), "--join", first.ready.Peer, "--token", "sesame")
	if r.code != 1 || !strings.Contains(r.stderr, "join with an empty directory") {
		t.Errorf("a directory that was used alone: %+v", r)
	}
	if r := runHere(t, "", "topic", "list", "--data", used); r.code != 0 || !strings.Contains(r.stdout, "own") {
		t.Errorf("the directory afterwards: %+v", r)
	}
}

// A node joins with a token, leaves, and says afterwards that it is none any more. The last one cannot go.
func TestClusterJoinAndLeave(t *testing.T) {
	dir := t.TempDir()
	run := func(code int, n *node, line, want string) {
		t.Helper()
		r := runHere(t, "", append(strings.Fields(line), "--data", n.data)...)
		if r.code != code || !strings.Contains(r.stdout+r.stderr, want) {
			t.Fatalf("%s: %+v; want code %d and %q", line, r, code, want)
		}
	}
	first := serveNode(t, 1, filepath.Join(dir, "n1"), "--timing", "fast", "--peer-listen", freePort(t), "--token", "sesame")
	soon(t, "the first node leads", func() bool { return first.status(t).Logs[0].Leader == 1 })
	run(0, first, "topic create orders", "created")
	at := freePort(t)
	run(0, first, "cluster add 2 "+at, "may take part")
	second := serveNode(t, 2, filepath.Join(dir, "n2"), "--timing", "fast", "--peer-listen", at, "--join", first.ready.Peer, "--token", "sesame")
	soon(t, "both are members of the metadata", func() bool {
		st := second.status(t)
		return len(st.Nodes) == 2 && len(st.Logs) == 2 && len(st.Logs[0].InSync) == 2
	})
	run(0, second, "topic list", "other nodes have some partitions alone")
	run(0, second, "cluster set-replication-factor orders 2", "gets 2 replicas")
	run(2, second, "cluster set-replication-factor orders 9", "there are 2 nodes")
	soon(t, "the topic has both", func() bool {
		st := second.status(t)
		return len(st.Logs[1].InSync) == 2
	})
	soon(t, "the new replica has a vote, and leads", func() bool {
		return runHere(t, "", "cluster", "transfer-leadership", "orders/0", "--to", "2", "--data", second.data).code == 0
	})
	run(2, first, "cluster remove 2 --yes", "drain it first")
	// A leave that was interrupted has drained the node. It can be taken back, and called again.
	run(0, second, "cluster drain 2", "fewer replicas than wanted")
	soon(t, "status says how far that is", func() bool {
		r := runHere(t, "", "cluster", "status", "--data", first.data)
		return strings.Contains(r.stdout, "drained: `embedlog cluster remove 2` forgets it") && strings.Contains(r.stdout, "1 of 2 replicas")
	})
	run(0, first, "cluster drain 2 --undo", "may have replicas again")
	soon(t, "the topic has both again, by itself", func() bool {
		st := first.status(t)
		return len(st.Logs[1].Replicas) == 2 && len(second.status(t).Logs[1].InSync) == 2
	})
	run(0, second, "cluster drain 2", "fewer replicas than wanted")
	run(0, second, "cluster leave --yes", "node 2 has left")
	run(0, second, "cluster leave --yes", "node 2 has left")
	soon(t, "who was removed says so", func() bool {
		r := runHere(t, "", "cluster", "status", "--data", second.data)
		return strings.Contains(r.stdout, "node 2 was removed from the cluster")
	})
	second.stop()
	soon(t, "the first node is alone", func() bool {
		st := first.status(t)
		return len(st.Nodes) == 1 && len(st.Logs[1].Replicas) == 1 && st.Logs[1].Leader == 1
	})
	run(2, first, "cluster drain 1", "there is no node left that can have a replica")
	run(2, first, "cluster remove 1 --yes", "it is the only node")
	run(2, first, "cluster leave --yes", "there is no node left that can have a replica")
}
