package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/compress"
	"github.com/x/embedlog/kafka"
)

// kcat runs rounds of kcat and looks at what it printed, and at what the database
// has of it.
func kcat(ctx context.Context, r *run) (o outcome, err error) {
	if _, err := exec.LookPath("kcat"); err != nil {
		return o, fmt.Errorf("kcat %w: apt-get install kcat", errMissing)
	}
	s, err := serve(r, "kcat", kafka.Options{Listeners: []kafka.Listener{{Address: "127.0.0.1:0"}}})
	if err != nil {
		return o, err
	}
	defer func() {
		if e := s.stop(); err == nil {
			err = e
		}
	}()
	k := &kcatRun{ctx: ctx, s: s}
	for _, round := range []struct {
		name string
		run  func() error
	}{
		{"metadata", k.metadata},
		{"keys and a restartless read", k.produceAndRead},
		{"headers and empty values", k.headers},
		{"a consumer group", k.group},
		{"idempotence", k.idempotent},
		{"codecs stay", k.codecs},
		{"a transaction", k.transaction},
		{"offsets by time", k.times},
		{"a partition that is not there", k.unknownPartition},
	} {
		if err := round.run(); err != nil {
			o.failed = append(o.failed, fmt.Sprintf("%s: %v", round.name, err))
			continue
		}
		o.passed++
	}
	return o, nil
}

type kcatRun struct {
	ctx context.Context
	s   *server
}

// call runs kcat and returns what it printed.
func (k *kcatRun) call(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(k.ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kcat", append([]string{"-b", k.s.addr(0)}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kcat %s: %w\n%s", strings.Join(args, " "), err, tail(errs.String(), 10))
	}
	return out.String(), nil
}

// want runs kcat and compares the lines that it printed.
func (k *kcatRun) want(lines []string, stdin string, args ...string) error {
	out, err := k.call(stdin, args...)
	if err != nil {
		return err
	}
	if got := strings.Split(strings.TrimSuffix(out, "\n"), "\n"); !slices.Equal(got, lines) {
		return fmt.Errorf("kcat %s printed %q, want %q", strings.Join(args, " "), got, lines)
	}
	return nil
}

func (k *kcatRun) metadata() error {
	if _, err := k.s.db.CreateTopic(k.ctx, "listed", &embedlog.TopicConfig{Partitions: 3}); err != nil {
		return err
	}
	out, err := k.call("", "-L", "-J")
	if err != nil {
		return err
	}
	for _, want := range []string{`"topic":"listed"`, `"partition":2`, `"leader":1`} {
		if !strings.Contains(out, want) {
			return fmt.Errorf("no %s in %s", want, out)
		}
	}
	return nil
}

func (k *kcatRun) produceAndRead() error {
	if _, err := k.call("k1:v1\nk2:v2\nk1:v3\n", "-P", "-t", "t1", "-K:"); err != nil {
		return err
	}
	return k.want([]string{"0 0 k1 v1", "0 1 k2 v2", "0 2 k1 v3"}, "", "-C", "-t", "t1", "-o", "beginning", "-e", "-q", "-f", `%p %o %k %s\n`)
}

func (k *kcatRun) headers() error {
	if _, err := k.call("a:\n", "-P", "-t", "headers", "-K:", "-Z", "-H", "one=1", "-H", "two=2"); err != nil {
		return err
	}
	return k.want([]string{"a -1 one=1,two=2"}, "", "-C", "-t", "headers", "-o", "beginning", "-e", "-q", "-f", `%k %S %h\n`)
}

func (k *kcatRun) group() error {
	if _, err := k.call("a\nb\n", "-P", "-t", "grouped"); err != nil {
		return err
	}
	read := []string{"-G", "g1", "-X", "auto.offset.reset=earliest", "-e", "-q", "grouped"}
	if err := k.want([]string{"a", "b"}, "", read...); err != nil {
		return err
	}
	if _, err := k.call("c\n", "-P", "-t", "grouped"); err != nil {
		return err
	}
	if err := k.want([]string{"c"}, "", read...); err != nil {
		return fmt.Errorf("the group does not go on where it was: %w", err)
	}
	info, err := k.s.db.DescribeGroup(k.ctx, "g1")
	if err != nil {
		return err
	}
	if len(info.Partitions) != 1 || info.Partitions[0].Lag != 0 {
		return fmt.Errorf("the group as the Go door sees it: %+v", info)
	}
	return nil
}

func (k *kcatRun) idempotent() error {
	if _, err := k.call("a\nb\nc\n", "-P", "-t", "idempotent", "-X", "enable.idempotence=true", "-z", "zstd", "-H", "h=1"); err != nil {
		return err
	}
	return k.want([]string{"a", "b", "c"}, "", "-C", "-t", "idempotent", "-o", "beginning", "-e", "-q")
}

// codecs checks that what a client compressed is stored as it came: one that is told of
// too few versions of Produce sends it uncompressed.
func (k *kcatRun) codecs() error {
	for _, c := range []compress.Codec{compress.Gzip, compress.Snappy, compress.LZ4, compress.Zstd} {
		topic, value := "codec-"+c.String(), strings.Repeat("compressible ", 100)
		if _, err := k.call(value+"\n"+value+"\n", "-P", "-t", topic, "-z", c.String()); err != nil {
			return err
		}
		if err := k.want([]string{value, value}, "", "-C", "-t", topic, "-o", "beginning", "-e", "-q"); err != nil {
			return err
		}
		t, err := k.s.db.Topic(topic)
		if err != nil {
			return err
		}
		et, err := t.EngineTopic()
		if err != nil {
			return err
		}
		reader, err := et.Partitions()[0].ReadFrom(0, nil)
		if err != nil {
			return err
		}
		batch, err := reader.TryNext()
		if err != nil {
			return err
		}
		h, err := batch.Header()
		if err != nil {
			return err
		}
		if got := compress.Codec(h.Attributes & 7); got != c {
			return fmt.Errorf("what was sent with %s lies there with %s", c, got)
		}
	}
	return nil
}

func (k *kcatRun) transaction() error {
	if _, err := k.call("tx\n", "-P", "-t", "transactions", "-X", "transactional.id=tx1"); err != nil {
		return err
	}
	return k.want([]string{"tx"}, "", "-C", "-t", "transactions", "-o", "beginning", "-e", "-q", "-X", "isolation.level=read_committed")
}

func (k *kcatRun) times() error {
	before := time.Now().Add(-time.Hour).UnixMilli()
	after := time.Now().Add(time.Hour).UnixMilli()
	if _, err := k.call("a\nb\n", "-P", "-t", "times"); err != nil {
		return err
	}
	if err := k.want([]string{"a", "b"}, "", "-C", "-t", "times", "-o", fmt.Sprintf("s@%d", before), "-e", "-q"); err != nil {
		return err
	}
	return k.want([]string{""}, "", "-C", "-t", "times", "-o", fmt.Sprintf("s@%d", after), "-e", "-q")
}

func (k *kcatRun) unknownPartition() error {
	if out, err := k.call("", "-C", "-t", "times", "-p", "7", "-o", "beginning", "-e", "-q"); err == nil {
		return fmt.Errorf("reading a partition that is not there printed %q and no error", out)
	}
	return nil
}
