package raftrepl

import (
	"bytes"
	"context"
	"encoding/binary"

	"log/slog"
	"net"
	"reflect"
	"runtime"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
)

func FuzzHello(f *testing.F) {
	h := hello{low: 1, high: 1, flavour: flavourInstall, cluster: theCluster, from: 1, to: 2, directory: engine.TopicID{3},
		boot: 4, instance: 5, nonce: 6, last: 7, advertise: "host:1", token: "secret"}
	w := welcome{version: 1, reason: RefusedCluster, cluster: theCluster, node: 2, directory: engine.TopicID{3}, boot: 4, instance: 5, words: "why"}
	f.Add(h.encode())
	f.Add(w.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		if h, err := decodeHello(msg); err == nil && h.high <= protocolVersion {
			again, err := decodeHello(h.encode()[2:])
			if err != nil || *again != *h {
				t.Fatalf("%+v became %+v, %v", h, again, err)
			}
		}
		if w, err := decodeWelcome(msg); err == nil && len(w.words) <= 512 {
			again, err := decodeWelcome(w.encode()[2:])
			if err != nil || *again != *w {
				t.Fatalf("%+v became %+v, %v", w, again, err)
			}
		}
	})
}

// Frames: what the assembler takes it can be given again, and it never holds much more than it was
// given.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	o := newSending(laneEntries, []byte("abc"), []byte("defg"))
	o.writeFrame(&b, 4, true)
	newSending(laneUrgent, []byte("now")).writeFrame(&b, 3, true)
	o.writeFrame(&b, 3, false)
	f.Add(b.Bytes())
	f.Add([]byte{0x81, 0, 0, 0, 1, 3, 0xff, 0xff, 0xff, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var a assembler
		r := bytes.NewReader(b)
		for {
			l, msg, err := a.next(r)
			if err != nil {
				break
			}
			var again bytes.Buffer
			o := newSending(l, msg)
			for sent := 0; sent < o.total; {
				n := min(o.total-sent, 5)
				if o.total > 1000 {
					n = o.total - sent
				}
				if err := o.writeFrame(&again, n, sent == 0); err != nil {
					t.Fatal(err)
				}
				sent += n
			}
			l2, msg2, err := new(assembler).next(&again)
			if err != nil || l2 != l || !bytes.Equal(msg2, msg) {
				t.Fatalf("lane %d, %d bytes became lane %d, %d bytes, %v", l, len(msg), l2, len(msg2), err)
			}
		}
		runtime.ReadMemStats(&after)
		// A mebibyte for each message that begins, of ten bytes at least; and what was given.
		if grew := after.TotalAlloc - before.TotalAlloc; grew > uint64(16<<20+len(b)/10<<20+100*len(b)) {
			t.Fatalf("%d bytes of input took %d", len(b), grew)
		}
	})
}

func FuzzMessages(f *testing.F) {
	to := route{groupA, "1", "2.7"}
	big, _ := encodeAppend(9, to, &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 4, PrevLogTerm: 2, LeaderCommitIndex: 6, Entries: entries(5, 10, 5000, 0)})
	f.Add(bytes.Join(big, nil))
	f.Add(encodeVote(1, to, &raft.RequestVoteRequest{Term: 3, LastLogIndex: 8, LastLogTerm: 2, LeadershipTransfer: true}))
	f.Add(encodePreVote(1, to, &raft.RequestPreVoteRequest{Term: 3, LastLogIndex: 8, LastLogTerm: 2}))
	f.Add(appendRoute(appendHead(nil, kindTimeoutNow, 1), to))
	install, _ := encodeInstall(1, to, &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 2, Configuration: []byte("c"), Size: 9})
	f.Add(install)
	for _, r := range []any{&raft.AppendEntriesResponse{Term: 1, LastLog: 300, Success: true}, &raft.RequestVoteResponse{Granted: true}, &raft.TimeoutNowResponse{}} {
		f.Add(encodeAnswer(1, r, nil))
	}
	f.Add(encodeCall(1, 1000, "service"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder{b: b}
		k, id := d.head()
		if d.err != nil {
			return
		}
		var again []byte
		var got, got2 any
		decode := func(d *decoder) any {
			switch k {
			case kindAppend:
				return d.appendEntries()
			case kindVote:
				return d.vote()
			case kindPreVote:
				return d.preVote()
			case kindInstall:
				return d.install()
			}
			return nil
		}
		switch k {
		case kindAnswer:
			s := status(d.byte())
			if d.err != nil || s != statusOK {
				return
			}
			for _, r := range []any{&raft.AppendEntriesResponse{}, &raft.RequestVoteResponse{}, &raft.RequestPreVoteResponse{}, &raft.TimeoutNowResponse{}, &raft.InstallSnapshotResponse{}} {
				if decodeAnswer(d.b, r) != nil {
					continue
				}
				e := decoder{b: encodeAnswer(id, r, nil)}
				e.head()
				e.byte()
				r2 := reflect.New(reflect.TypeOf(r).Elem()).Interface()
				if err := decodeAnswer(e.b, r2); err != nil || !reflect.DeepEqual(r, r2) {
					t.Fatalf("%+v became %+v, %v", r, r2, err)
				}
			}
			return
		case kindAppend, kindVote, kindPreVote, kindInstall:
		default:
			return
		}
		to := d.route()
		got = decode(&d)
		if d.end() != nil {
			return
		}
		switch r := got.(type) {
		case *raft.AppendEntriesRequest:
			segments, err := encodeAppend(id, to, r)
			if err != nil {
				t.Fatal(err)
			}
			again = bytes.Join(segments, nil)
		case *raft.RequestVoteRequest:
			again = encodeVote(id, to, r)
		case *raft.RequestPreVoteRequest:
			again = encodePreVote(id, to, r)
		case *raft.InstallSnapshotRequest:
			var err error
			if again, err = encodeInstall(id, to, r); err != nil {
				t.Fatal(err)
			}
		}
		d = decoder{b: again}
		d.head()
		to2 := d.route()
		got2 = decode(&d)
		if d.end() != nil || to2 != to || !reflect.DeepEqual(got, got2) {
			t.Fatalf("%+v became %+v, %v", got, got2, d.err)
		}
	})
}

// Whatever a peer that was let in sends, the connection ends or goes on; nothing panics.
func FuzzPeer(f *testing.F) {
	f.Add([]byte{byte(laneUrgent), byte(kindCredit), 1, 5})
	f.Add(append([]byte{byte(laneEntries)}, encodeCall(1, 5, "x")...))
	f.Add(append([]byte{byte(laneEntries)}, binary.AppendUvarint(appendHead(nil, kindChunk, 3), 7)...))
	tr := &transport{peers: map[int32]*peer{}, groups: map[engine.LogID]*groupTransport{}, closed: true}
	tr.logger, tr.ctx = slog.New(slog.DiscardHandler), context.Background()
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		l := newWire(tr, newPeer(tr, 1), flavourMain, here)
		l.in[3] = &receiveStream{l: l, id: 3, more: make(chan struct{}, 1)}
		l.out[1] = &sendStream{more: make(chan struct{}, 1)}
		l.handle(lane(b[0])%lanes, b[1:])
		if s := l.in[3]; s != nil && s.bytes > installWindow+len(b) {
			t.Fatalf("%d bytes of an install are held", s.bytes)
		}
	})
}
