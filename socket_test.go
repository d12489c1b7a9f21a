package embedlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/x/embedlog/internal/sock"
)

// talk is a client's end of a session, as bare as can be.
type talk struct {
	t    *testing.T
	conn io.ReadWriteCloser
}

// session starts one on a pipe.
func startSession(t *testing.T, db *DB) (talk, <-chan error) {
	t.Helper()
	here, there := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- db.ServeCommands(context.Background(), there) }()
	if err := sock.Hello(here); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	return talk{t, here}, ended
}

func (c talk) send(op sock.Op, request any) {
	c.t.Helper()
	payload, ok := request.([]byte)
	if !ok {
		var err error
		if payload, err = json.Marshal(request); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := sock.WriteFrame(c.conn, uint8(op), payload); err != nil {
		c.t.Fatal(err)
	}
}

func (c talk) receive() (sock.Kind, []byte) {
	c.t.Helper()
	for {
		kind, b, err := sock.ReadFrame(c.conn, sock.MaxReplyBytes)
		if err != nil {
			c.t.Fatalf("no answer: %v", err)
		}
		if sock.Kind(kind) != sock.KindProgress {
			return sock.Kind(kind), b
		}
	}
}

// ask wants a reply.
func (c talk) ask(op sock.Op, request any) []byte {
	c.t.Helper()
	c.send(op, request)
	kind, b := c.receive()
	if kind != sock.KindReply {
		c.t.Fatalf("request %d: got %s, want a reply", op, b)
	}
	return b
}

// refused wants an error with this code.
func (c talk) refused(op sock.Op, request any, want sock.Code) {
	c.t.Helper()
	c.send(op, request)
	c.wantError(want)
}

func (c talk) wantError(want sock.Code) {
	c.t.Helper()
	kind, b := c.receive()
	var e sock.Error
	if kind != sock.KindError || json.Unmarshal(b, &e) != nil || e.Code != want {
		c.t.Errorf("got kind %d: %s, want an error %q", kind, b, want)
	}
}

func sessionDB(t *testing.T) *DB {
	t.Helper()
	db, err := OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestSessionAnswers(t *testing.T) {
	db := sessionDB(t)
	c, ended := startSession(t, db)
	c.ask(sock.OpCreateTopic, sock.CreateTopic{Topic: "orders", Partitions: 2})
	c.ask(sock.OpProducer, sock.Producer{Topic: "orders", Compression: "zstd"})
	got, err := sock.DecodeProduced(c.ask(sock.OpProduce, sock.AppendRecords(nil, []sock.Record{
		{Partition: 1, Value: []byte("a")}, {Partition: 7, Value: []byte("nowhere")}, {Partition: 1, Value: []byte("b")},
	})))
	if err != nil || got.Err == nil || got.Err.Code != sock.CodeUnknownPart {
		t.Fatalf("got %+v, %v; want an unknown partition", got, err)
	}
	if a := got.Acks; a[0] != (sock.Ack{Partition: 1, Offset: 0}) || a[1].Offset != -1 || a[2] != (sock.Ack{Partition: 1, Offset: 1}) {
		t.Errorf("acks %+v: the first and the third are at 1/0 and 1/1", a)
	}

	// What goes wrong is told, and the session goes on.
	c.refused(sock.OpTopics, sock.TopicsRequest{Topic: "nosuch"}, sock.CodeUnknownTopic)
	c.refused(sock.OpCreateTopic, sock.CreateTopic{Topic: "orders", Partitions: 2}, sock.CodeTopicExists)
	c.refused(sock.OpCreateTopic, sock.CreateTopic{Topic: "no/name", Partitions: 2}, sock.CodeInvalid)
	c.refused(sock.OpProducer, sock.Producer{Topic: "nosuch"}, sock.CodeUnknownTopic)
	c.refused(sock.OpProducer, sock.Producer{Topic: "orders", Compression: "brotli"}, sock.CodeInvalid)
	c.refused(sock.OpProduce, []byte("x"), sock.CodeProtocol)
	c.refused(sock.OpTrim, sock.Trim{Topic: "orders", Partition: 1, Before: 99}, sock.CodeOffsetRange)
	c.refused(sock.OpTrim, []byte("{"), sock.CodeProtocol)
	c.refused(sock.Op(200), struct{}{}, sock.CodeInvalid)
	c.send(sock.OpCancel, []byte{}) // of nothing: no answer
	c.ask(sock.OpInfo, struct{}{})

	c.conn.Close()
	if err := <-ended; err != nil {
		t.Errorf("after the client hung up: %v", err)
	}
}

func TestSessionEndsWithTheDatabase(t *testing.T) {
	db, err := OpenMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, ended := startSession(t, db)
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	c.wantError(sock.CodeClosing)
	if err := errors.Join(<-ended, <-closed); err != nil {
		t.Error(err)
	}
	here, there := net.Pipe()
	defer here.Close()
	if err := db.ServeCommands(context.Background(), there); !errors.Is(err, ErrClosed) {
		t.Errorf("a session of a closed database: %v, want ErrClosed", err)
	}
}

// A client may not send a second request before the first is answered: it would
// keep us from seeing that it hangs up.
func TestSessionTakesOneRequestAtATime(t *testing.T) {
	db := sessionDB(t)
	c, ended := startSession(t, db)
	c.ask(sock.OpCreateTopic, sock.CreateTopic{Topic: "orders", Partitions: 1})
	c.ask(sock.OpConsumer, sock.Consumer{Topics: []string{"orders"}})
	c.send(sock.OpPoll, sock.Poll{MaxRecords: 1, Wait: time.Minute})
	c.send(sock.OpInfo, struct{}{})
	go func() { _, _ = io.Copy(io.Discard, c.conn) }() // until the session closes it
	if err := <-ended; !errors.Is(err, sock.ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
}

func TestSessionConsumes(t *testing.T) {
	db := sessionDB(t)
	c, ended := startSession(t, db)
	c.ask(sock.OpCreateTopic, sock.CreateTopic{Topic: "orders", Partitions: 1})
	c.refused(sock.OpPoll, sock.Poll{}, sock.CodeProtocol)
	c.refused(sock.OpCommit, struct{}{}, sock.CodeProtocol)
	c.refused(sock.OpLag, struct{}{}, sock.CodeProtocol)
	c.refused(sock.OpConsumer, sock.Consumer{Topics: []string{"nosuch"}}, sock.CodeUnknownTopic)

	c.ask(sock.OpConsumer, sock.Consumer{Topics: []string{"orders"}, Group: "g"})
	if b := c.ask(sock.OpPoll, sock.Poll{MaxRecords: 1}); !bytes.Equal(b, sock.AppendRecords(nil, nil)) {
		t.Errorf("a poll of nothing that waits for nothing: %x", b)
	}
	// A wait ends with a record, and with a cancel frame.
	c.send(sock.OpPoll, sock.Poll{MaxRecords: 10, Wait: time.Minute})
	if _, err := mustTopic(t, db, "orders").Produce(context.Background(), Record{Value: []byte("1")}, Record{Value: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	kind, b := c.receive()
	recs, err := sock.DecodeRecords(b)
	if kind != sock.KindReply || err != nil || len(recs) != 2 || string(recs[1].Value) != "2" {
		t.Fatalf("got %d records: %s, %v", len(recs), b, err)
	}
	c.ask(sock.OpCommit, struct{}{})
	c.send(sock.OpPoll, sock.Poll{MaxRecords: 10, Wait: time.Minute})
	c.send(sock.OpCancel, []byte{})
	c.wantError(sock.CodeCancelled)

	c.conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	committed, err := db.engine.Groups().Committed(context.Background(), "g", nil, false)
	if err != nil || len(committed) != 1 || committed[0].Offset != 2 {
		t.Errorf("committed %+v, %v; want offset 2", committed, err)
	}
}

func mustTopic(t *testing.T, db *DB, name string) *Topic {
	t.Helper()
	topic, err := db.Topic(name)
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func TestOptionsSocket(t *testing.T) {
	if _, err := OpenMemory(&Options{Socket: true}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a socket in memory: %v, want ErrUnsupported", err)
	}
	dir := t.TempDir()
	db, err := Open(dir, &Options{Socket: true})
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("got %v, want ErrUnsupported", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	conn, err := sock.Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := sock.Hello(conn); err != nil {
		t.Fatal(err)
	}
	c := talk{t, conn}
	c.ask(sock.OpCreateTopic, sock.CreateTopic{Topic: "orders", Partitions: 1})
	if _, err := db.Topic("orders"); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c.wantError(sock.CodeClosing)
	if _, err := os.Lstat(filepath.Join(dir, sock.Name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSocketRefusesTooMany(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the path of a test's directory may be too long for a socket here")
	}
	dir := t.TempDir()
	db, err := Open(dir, &Options{Socket: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range maxSessions + 1 {
		conn, err := sock.Dial(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := sock.Hello(conn); err != nil {
			t.Fatal(err)
		}
		c := talk{t, conn}
		if i < maxSessions {
			c.ask(sock.OpInfo, struct{}{})
		} else {
			c.wantError(sock.CodeBusy)
		}
	}
}

// Whatever a client sends: no panic, and the session ends.
func FuzzSession(f *testing.F) {
	frame := func(op sock.Op, payload string) string {
		var b bytes.Buffer
		_ = sock.WriteFrame(&b, uint8(op), []byte(payload)) // memory
		return b.String()
	}
	f.Add([]byte(frame(sock.OpCreateTopic, `{"topic":"a","partitions":2}`)))
	f.Add([]byte(frame(sock.OpProducer, `{"topic":"t"}`) + frame(sock.OpCancel, "")))
	f.Add([]byte(frame(sock.OpTopics, `{}`)))
	f.Add([]byte(frame(sock.OpListOffsets, `{"topic":"t","at":"time","time":"2026-01-01T00:00:00Z"}`)))
	f.Add([]byte(frame(sock.OpConsumer, `{"topics":["t"],"group":"g"}`)))
	f.Add([]byte(frame(sock.OpConsumer, `{"assign":[{"topic":"t","partition":0,"offset":-2}]}`)))
	f.Add([]byte(frame(sock.OpViews, `{}`) + frame(sock.OpViewGet, `{"graph":"g","view":"v","key":{"json":1}}`)))
	f.Add([]byte(frame(sock.OpViewOpen, `{"graph":"g","view":"v","watch":true}`) + frame(sock.OpViewRows, `{"max_rows":1}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		db, err := OpenMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.CreateTopic(context.Background(), "t", nil); err != nil {
			t.Fatal(err)
		}
		// A frame at a time, so that one is answered before the next is sent.
		c, ended := startSession(t, db)
		r := bytes.NewReader(b)
		for {
			kind, payload, err := sock.ReadFrame(r, 1<<20)
			if err != nil || sock.Op(kind) == sock.OpBackup || sock.Op(kind) == sock.OpExport {
				break // those would write files
			}
			c.send(sock.Op(kind), payload)
			if sock.Op(kind) != sock.OpCancel && sock.Op(kind) != sock.OpPoll {
				c.receive()
			} else if sock.Op(kind) == sock.OpPoll {
				c.send(sock.OpCancel, []byte{})
				c.receive()
			}
		}
		c.conn.Close()
		if err := <-ended; err != nil {
			t.Errorf("the session ended with %v", err)
		}
	})
}
