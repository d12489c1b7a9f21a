package main

import (
	"net"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/sock"
)

// The program that holds the directory is killed while it has a request: what was
// acknowledged is said, and what nobody can know.
func TestHolderDiesWithARequest(t *testing.T) {
	mine, holder := net.Pipe()
	defer mine.Close()
	served := make(chan error, 1)
	go func() {
		defer holder.Close() // as the kernel does for a process that was killed
		if _, _, err := sock.ReadFrame(holder, sock.MaxRequestBytes); err != nil {
			served <- err
			return
		}
		reply := sock.AppendProduced(nil, sock.Produced{Acks: []sock.Ack{{Offset: 0}, {Offset: 1}}})
		if err := sock.WriteFrame(holder, uint8(sock.KindReply), reply); err != nil {
			served <- err
			return
		}
		_, _, err := sock.ReadFrame(holder, sock.MaxRequestBytes)
		served <- err
	}()
	p := &producing{a: &app{}, open: sock.Producer{Topic: "t"}, c: &client{door: &wire{conn: mine, close: mine.Close}}}
	batch := func(lines ...int64) lineBatch {
		b := lineBatch{lines: lines}
		for range lines {
			b.records = append(b.records, sock.Record{Value: []byte("v")})
		}
		return b
	}
	if err := p.append(batch(1, 2)); err != nil {
		t.Fatal(err)
	}
	err := p.failed(p.append(batch(3, 5)))
	if serverErr := <-served; serverErr != nil {
		t.Fatal(serverErr)
	}
	got := oneLine(err)
	if !strings.HasPrefix(got, errLost.Error()) || !strings.HasSuffix(got, "; outcome of lines 3 to 5 unknown; 2 lines acknowledged") {
		t.Errorf("%q", got)
	}
	if code := exitCode(err); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
}

func TestShorten(t *testing.T) {
	for what, want := range map[string]string{
		"appending orders": "appending orders",
		"copy topics/kWqqBFpbWbz9MOw0THMrcQ/2/00000000000000000000.log": "copy topics/kWqq…/2/0000….log",
		"appending " + strings.Repeat("a", 100):                         "appending aaaaaaaaaaaaaaaaaaa…",
	} {
		if got := shorten(what); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
}
