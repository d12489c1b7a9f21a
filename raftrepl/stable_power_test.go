//go:build linux

package raftrepl

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/engine"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// What a power cut leaves of raft.db: a child writes votes under strace, and its writes and syncs are the history
// of the file. At each moment of it what was synced is there, and of the sectors that were written since any may be, or not.

const (
	boltWorkVar = "EMBEDLOG_BOLT_WORK" // the file that a child writes votes to
	boltSteps   = 60
	sectorBytes = 512
)

// boltStep is the i-th change that the child makes: to which group, and how; forgets says that it is forgotten instead.
func boltStep(i int) (id engine.LogID, forgets bool, change func(*vote)) {
	id = logID(int32(i * 7 % 31))
	return id, i%13 == 12, func(g *vote) {
		g.term, g.voteTerm, g.candidate, g.joined = uint64(i+1), uint64(i+1), strings.Repeat(fmt.Sprint(i), 1+i%5*40), true
	}
}

// boltModel is what is stored after n steps.
func boltModel(n int) map[engine.LogID]vote {
	all := make(map[engine.LogID]vote)
	for i := range n {
		id, forgets, change := boltStep(i)
		g := all[id]
		g.id = id
		if change(&g); forgets {
			delete(all, id)
			continue
		}
		all[id] = g
	}
	return all
}

// TestBoltWork is the child: it says on standard error when the file is open, and when a change was acknowledged.
func TestBoltWork(t *testing.T) {
	path := os.Getenv(boltWorkVar)
	if path == "" {
		t.Skip("it is the child of another test")
	}
	v, err := OpenVotes(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Stderr.WriteString("@open")
	for i := range boltSteps {
		id, forgets, change := boltStep(i)
		if forgets {
			err = v.Forget(id)
		} else {
			err = v.change(id, change)
		}
		if err != nil {
			t.Fatal(err)
		}
		os.Stderr.WriteString("@stored")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// boltCall is one system call of the child.
type boltCall struct {
	name string // pwrite64, ftruncate, fsync, fdatasync; open and stored are its words
	at   int64  // of a write; the size of ftruncate
	data []byte
}

// boltHistory runs the child and returns what it did to the file.
func boltHistory(t *testing.T) (calls []boltCall) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed: what is written cannot be recorded")
	}
	if out, err := exec.Command("strace", "-qq", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
	dir := t.TempDir()
	path, trace := filepath.Join(dir, "raft.db"), filepath.Join(dir, "trace")
	cmd := exec.Command("strace", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-e", "signal=none", "-e", "trace=pwrite64,ftruncate,fsync,fdatasync,write", "-o", trace,
		os.Args[0], "-test.run", "^TestBoltWork$")
	cmd.Env = append(os.Environ(), boltWorkVar+"="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	calls = parseTrace(t, b, path)
	var whole []byte
	for _, c := range calls {
		whole = c.apply(whole)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, whole) {
		t.Fatalf("the history does not lead to the file: %d bytes, the file has %d: %v", len(whole), len(got), err)
	}
	return calls
}

var (
	traceCall  = regexp.MustCompile(`^(\w+)\(\d+<([^>]*)>(?:, (.*))?\) += \d+$`)
	traceBytes = regexp.MustCompile(`^"((?:\\x[0-9a-f]{2})*)", \d+(?:, (\d+))?$`)
)

// parseTrace reads what strace has written of one file, and the child's words.
func parseTrace(t *testing.T, b []byte, path string) (calls []boltCall) {
	t.Helper()
	begun := make(map[string]string) // of a thread's call that another thread's came into
	in := bufio.NewScanner(bytes.NewReader(b))
	in.Buffer(nil, 8<<20)
	for in.Scan() {
		pid, line, _ := strings.Cut(in.Text(), " ")
		line = strings.TrimSpace(line)
		if first, cut := strings.CutSuffix(line, " <unfinished ...>"); cut {
			begun[pid] = first
			continue
		}
		if strings.HasPrefix(line, "<... ") {
			_, rest, _ := strings.Cut(line, " resumed>")
			line = begun[pid] + rest
		}
		m := traceCall.FindStringSubmatch(line)
		if m == nil {
			continue // an end, or one that failed
		}
		c := boltCall{name: m[1]}
		if c.name == "pwrite64" || c.name == "write" {
			a := traceBytes.FindStringSubmatch(m[3])
			if a == nil {
				t.Fatalf("%.200s", line)
			}
			data, err := hex.DecodeString(strings.ReplaceAll(a[1], `\x`, ""))
			if err != nil {
				t.Fatal(err)
			}
			c.data = data
			c.at, _ = strconv.ParseInt(a[2], 10, 64)
		}
		switch {
		case c.name == "write" && bytes.HasPrefix(c.data, []byte("@")):
			calls = append(calls, boltCall{name: string(c.data[1:])})
		case unhex(m[2]) != path:
		case c.name == "ftruncate":
			c.at, _ = strconv.ParseInt(m[3], 0, 64)
			calls = append(calls, c)
		default:
			calls = append(calls, c)
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return calls
}

// unhex is a path as strace shows it: with -xx some versions write its bytes as numbers.
func unhex(s string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil || !strings.HasPrefix(s, `\x`) {
		return s
	}
	return string(b)
}

// apply does a call to a file.
func (c *boltCall) apply(b []byte) []byte {
	switch c.name {
	case "pwrite64":
		if end := int(c.at) + len(c.data); end > len(b) {
			b = append(b, make([]byte, end-len(b))...)
		}
		copy(b[c.at:], c.data)
	case "ftruncate":
		if n := int(c.at) - len(b); n > 0 {
			b = append(b, make([]byte, n)...)
		} else {
			b = b[:c.at]
		}
	}
	return b
}

// parts are the writes of one sector each that a call is for the disk.
func (c *boltCall) parts() (list []boltCall) {
	if c.name != "pwrite64" {
		return []boltCall{*c}
	}
	for i := 0; i < len(c.data); i += sectorBytes {
		list = append(list, boltCall{c.name, c.at + int64(i), c.data[i:min(i+sectorBytes, len(c.data))]})
	}
	return list
}

// afterPowerCut is one state of a file of which durable was synced and pending was not: of the calls, or with torn of their
// sectors, those are there that keep says.
func afterPowerCut(durable []byte, pending []boltCall, torn bool, keep func(i int) bool) []byte {
	b := bytes.Clone(durable)
	var list []boltCall
	for i := range pending {
		if torn {
			list = append(list, pending[i].parts()...)
		} else {
			list = append(list, pending[i])
		}
	}
	for i := range list {
		if keep(i) {
			b = list[i].apply(b)
		}
	}
	return b
}

// Whatever a power cut leaves of raft.db while votes are written, it opens with all that was acknowledged, and at most the change
// more that was under way. In the first moments, when nothing was promised yet, it is begun again. A bit
// that is turned over in any of these states is found, or makes no difference.
func TestVotesAfterAPowerCut(t *testing.T) {
	calls := boltHistory(t)
	rnd := rand.New(rand.NewPCG(3, 5))
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	have := func(v *Votes) map[engine.LogID]vote {
		all := make(map[engine.LogID]vote)
		for k := range int32(31) {
			if g, ok := v.get(logID(k)); ok {
				g.slot = 0
				all[logID(k)] = g
			}
		}
		return all
	}
	open := func(b []byte) (map[engine.LogID]vote, error) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := openBolt(path, false)
		if err != nil {
			return nil, err
		}
		defer v.Close()
		return have(v), nil
	}
	var durable []byte
	var pending []boltCall
	opened, stored := false, 0
	states, newer, flipped, found, begun, turn := 0, 0, 0, 0, 0, 0
	every := 12 // in an ordinary run
	if everyOperation() {
		every = 1
	}
	check := func(what string, b []byte) {
		t.Helper()
		if turn++; opened && turn%every != 0 {
			return
		}
		states++
		got, err := open(b)
		switch {
		case err != nil && !opened:
			// Nobody was ever told anything: the node begins with a new file.
			n := &votesHost{dir: dir}
			v, err := openNodeVotes(n)
			if err != nil {
				t.Fatalf("%s, before anything was stored: %v", what, err)
			}
			if len(have(v)) > 0 {
				t.Fatalf("%s: votes that nobody gave", what)
			}
			v.Close()
			begun++
			return
		case err != nil:
			t.Fatalf("%s, %d of %d pending, %d changes acknowledged: %v", what, len(pending), len(calls), stored, err)
		case maps.Equal(got, boltModel(stored)):
		case stored < boltSteps && maps.Equal(got, boltModel(stored+1)):
			newer++
		default:
			t.Fatalf("%s: %d changes were acknowledged, and there is something else: %d votes", what, stored, len(got))
		}
		if len(b) == 0 {
			return
		}
		damaged := bytes.Clone(b)
		at := rnd.IntN(len(damaged))
		if page := os.Getpagesize(); rnd.IntN(2) == 0 {
			at = at/page*page + rnd.IntN(200) // where a page says what it is
		}
		if at >= len(damaged) {
			return
		}
		damaged[at] ^= 1 << rnd.IntN(8)
		flipped++
		switch after, err := open(damaged); {
		case errors.Is(err, log.ErrCorrupt):
			found++
		case err != nil:
			t.Fatalf("%s, bit of byte %d: %v", what, at, err)
		case !maps.Equal(after, got):
			t.Fatalf("%s, bit of byte %d: it has other votes", what, at)
		}
	}
	for i, c := range calls {
		switch c.name {
		case "open":
			opened = true
			continue
		case "stored":
			stored++
			continue
		case "fsync", "fdatasync":
			for _, p := range pending {
				durable = p.apply(durable)
			}
			pending = nil
		default:
			pending = append(pending, c)
		}
		name := fmt.Sprintf("after call %d (%s)", i, c.name)
		check(name+", what is synced", durable)
		if len(pending) == 0 {
			continue
		}
		check(name+", all", afterPowerCut(durable, pending, false, func(int) bool { return true }))
		for only := range pending {
			check(name+", one alone", afterPowerCut(durable, pending, false, func(i int) bool { return i == only }))
			check(name+", all but one", afterPowerCut(durable, pending, false, func(i int) bool { return i != only }))
		}
		check(name+", the first sector", afterPowerCut(durable, pending, true, func(i int) bool { return i == 0 }))
		for range 6 {
			of := 1 + rnd.IntN(9)
			check(name+", some sectors", afterPowerCut(durable, pending, true, func(int) bool { return rnd.IntN(10) < of }))
		}
	}
	if !opened || stored != boltSteps {
		t.Fatalf("the child stored %d changes of %d", stored, boltSteps)
	}
	t.Logf("%d calls, %d states: %d had the change that was under way, %d were begun again; %d of %d bits found", len(calls), states, newer, begun, found, flipped)
	if newer == 0 || begun == 0 || found == 0 {
		t.Error("the states are not those of a power cut, or the bits are not those that count")
	}
}

// votesHost is what openNodeVotes asks of its host.
type votesHost struct {
	engine.Host
	dir string
}

func (h *votesHost) Dir() string { return h.dir }

func (h *votesHost) FS() vfs.FS {
	fsys, err := vfs.OS(h.dir)
	if err != nil {
		panic(err)
	}
	return fsys
}
