package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/x/embedlog"
	"github.com/x/embedlog/internal/sock"
)

// The command that has the directory, and answers for it, ends while another one begins to consume: that one takes the directory itself.
func TestHolderClosesWhileAConsumerBegins(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the path of a test's directory may be too long for a socket here")
	}
	for name, answer := range map[string]func(conn *os.File) error{
		"says so": func(conn *os.File) error {
			b, err := json.Marshal(sock.Error{Code: sock.CodeClosing, Message: "consumer: closed"})
			return errors.Join(err, sock.WriteFrame(conn, uint8(sock.KindError), b))
		},
		"is gone": func(*os.File) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			db, err := embedlog.Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			top, err := db.EnsureTopic(t.Context(), "orders", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := top.Produce(t.Context(), embedlog.Record{Value: []byte("one")}); err != nil {
				t.Fatal(err)
			}
			l, err := sock.Listen(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan error, 1)
			go func() {
				served <- func() error {
					conn, err := l.Accept()
					if err != nil {
						return err
					}
					defer conn.Close()
					if err := sock.Hello(conn); err != nil {
						return err
					}
					kind, _, err := sock.ReadFrame(conn, sock.MaxRequestBytes)
					if err != nil || sock.Op(kind) != sock.OpConsumer {
						return errors.Join(err, errors.New("something else was asked for first"))
					}
					return errors.Join(answer(conn), l.Close(), db.Close())
				}()
			}()
			var out, said bytes.Buffer
			code := run([]string{"--data", dir, "consume", "orders", "-g", "g", "-n", "1"}, strings.NewReader(""), &out, &said)
			l.Close()
			if err := <-served; err != nil {
				t.Fatal(err)
			}
			if code != 0 || out.String() != "one\n" {
				t.Errorf("exit code %d, printed %q, said %q", code, &out, &said)
			}
		})
	}
}
