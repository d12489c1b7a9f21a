package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) produce() *cobra.Command {
	in := lineForm{partition: -1}
	var keySeparator, compression string
	var headers []string
	cmd := &cobra.Command{
		Use:   "produce TOPIC [FILE]... [-K SEPARATOR | -k KEY | -J]",
		Short: "Append records, one a line, from stdin or files",
		Long: `produce appends one record a line. A line is acknowledged when it is as safe as
the topic's embedlog.durability says; by default that is on the disk. The
records of a key keep their order.

With -J a line is a JSON object: value (a string, null for a tombstone, or any
other JSON, which is stored as it stands), and if wanted key, headers,
partition, timestamp; key_base64 and value_base64 hold bytes that are no
text. It is what ` + "`consume -J`" + ` writes.

Ctrl-C lets what is on its way finish and says how many lines were acknowledged;
those are there, whatever happens.`,
		Example: `  echo hello | embedlog produce greetings
  embedlog produce orders -K : -z zstd orders.txt
  embedlog produce orders -k ann -H source:shop < ann.txt
  echo '{"key":"ann","value":null}' | embedlog produce orders -J`,
		Args: takes(1, -1, "a topic"),
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := cmd.Flags()
			in.fixedKey, in.separated = flags.Changed("key"), flags.Changed("key-separator")
			switch {
			case in.fixedKey && in.separated:
				return usagef("-k and -K cannot both say what the key is")
			case in.json && (in.fixedKey || in.separated || in.emptyIsNull || len(headers) > 0):
				return usagef("with -J keys, headers and tombstones are in the lines; -k, -K, -H and -Z do not go with it")
			case flags.Changed("partition") && in.partition < 0:
				return usagef("a partition is 0 or more, not %d", in.partition)
			}
			var err error
			if in.separator, err = unescape(keySeparator); err != nil || in.separated && in.separator == "" {
				return usagef("-K needs a separator, such as : or \\t")
			}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, ":")
				if !ok {
					return usagef("a header is NAME:VALUE, not %q", h)
				}
				in.headers = append(in.headers, sock.Header{Key: name, Value: []byte(value)})
			}
			switch compression {
			case "", "none", "gzip", "snappy", "lz4", "zstd":
			default:
				return usagef("a compression is none, gzip, snappy, lz4 or zstd, not %q", compression)
			}
			p := &producing{a: a, form: in, open: sock.Producer{Topic: args[0], Compression: compression}}
			return p.run(cmd.Context(), args[1:])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&in.key, "key", "k", "", "one key for all records")
	f.StringVarP(&keySeparator, "key-separator", "K", "", `what stands between key and value in a line (\t is a tab)`)
	f.StringArrayVarP(&headers, "header", "H", nil, "a header for all records, NAME:VALUE; may be repeated")
	f.Int32VarP(&in.partition, "partition", "p", -1, "the partition, instead of the key's")
	f.StringVarP(&compression, "compression", "z", "", "none, gzip, snappy, lz4 or zstd (default: as the topic says)")
	f.BoolVarP(&in.emptyIsNull, "tombstone", "Z", false, "an empty value is a tombstone: compaction drops its key")
	f.BoolVarP(&in.json, "json", "J", false, "lines are JSON objects")
	return cmd
}

// producing is one run of the verb.
type producing struct {
	a    *app
	form lineForm
	open sock.Producer

	c     *client
	acked int64
}

// run reads and appends until the input ends, something fails or ctx does. What it
// holds is bounded: one request on its way, one waiting, one being read.
func (p *producing) run(ctx context.Context, files []string) (err error) {
	input, size, closeInput, err := p.a.input(files)
	if err != nil {
		return err
	}
	defer closeInput()
	if err := p.connect(ctx); err != nil {
		return err
	}
	defer func() {
		if closeErr := p.c.Close(); err == nil {
			err = closeErr
		}
	}()
	if isTerminal(input) {
		p.a.note("one record a line; Ctrl-D ends")
	}
	bar := p.a.bar(size, "appending "+p.open.Topic)
	defer bar.done()

	batches := make(chan lineBatch, 1)
	stop := make(chan struct{})
	defer close(stop)
	go readLines(input, &p.form, batches, stop)
	for interrupted := ctx.Done(); ; {
		var b lineBatch
		select {
		case b = <-batches:
		case <-interrupted:
			// What waits already goes first, so that little that was read is left out.
			interrupted = nil
			select {
			case b = <-batches:
			default:
			}
			b.err = context.Canceled
		}
		if err := p.append(b); err != nil {
			return p.failed(err)
		}
		bar.add(b.bytes)
		switch {
		case b.err == io.EOF:
			bar.done()
			p.a.note("appended %s to %s", plural(p.acked, "record"), p.open.Topic)
			return nil
		case b.err != nil:
			return p.failed(b.err)
		}
	}
}

// failed says how far it got beside what went wrong.
func (p *producing) failed(err error) error {
	lines := plural(p.acked, "line") + " acknowledged"
	if errors.Is(err, context.Canceled) {
		return &exitError{exitInterrupted, errors.New("interrupted: " + lines)}
	}
	return fmt.Errorf("%w; %s", err, lines)
}

// lineRange is "line 7", or "lines 7 to 12": those may or may not be there.
func lineRange(lines []int64) string {
	first, last := lines[0], lines[len(lines)-1]
	if first == last {
		return fmt.Sprintf("line %d", first)
	}
	return fmt.Sprintf("lines %d to %d", first, last)
}

func (p *producing) connect(ctx context.Context) error {
	c, err := p.a.connect(ctx, false)
	if err != nil {
		return err
	}
	if _, err = call[struct{}](ctx, c, sock.OpProducer, p.open); err != nil {
		return errors.Join(p.a.explain(err, p.open.Topic), c.Close())
	}
	p.c = c
	return nil
}

// append sends one batch. An interrupt does not cut it short.
func (p *producing) append(b lineBatch) error {
	if len(b.records) == 0 {
		return nil
	}
	ctx := context.Background()
	acks, err := p.c.produce(ctx, b.records)
	for isClosing(err) {
		// The holder closed the directory and took nothing: go on with the next one.
		if err := p.c.Close(); err != nil {
			return err
		}
		if err := p.connect(ctx); err != nil {
			return err
		}
		acks, err = p.c.produce(ctx, b.records)
	}
	if errors.Is(err, errLost) {
		// The request was sent whole, and its reply did not come: some, all or none of its
		// lines were appended. Sending them again could give them twice.
		return fmt.Errorf("%w; outcome of %s unknown", err, lineRange(b.lines))
	}
	first := -1
	for i, ack := range acks {
		if ack.Offset < 0 {
			if first < 0 {
				first = i
			}
			continue
		}
		p.acked++
		if p.a.asJSON() {
			if err := p.a.json(sock.Position{Topic: p.open.Topic, Partition: ack.Partition, Offset: ack.Offset, Epoch: -1}); err != nil {
				return err
			}
		}
	}
	if err != nil && first >= 0 {
		return fmt.Errorf("line %d: %w", b.lines[first], err)
	}
	return err
}

// explain adds what to do to an error about a topic.
func (a *app) explain(err error, topic string) error {
	if code(err) == sock.CodeUnknownTopic {
		return notFoundf("no topic %s; `embedlog topic create %s` makes it", topic, topic)
	}
	return err
}

// input is stdin, or the files one after the other, and its size where known.
func (a *app) input(names []string) (in io.Reader, size int64, done func(), err error) {
	if len(names) == 0 {
		return a.stdin, fileSize(a.stdin), func() {}, nil
	}
	var files []io.Closer
	done = func() { _ = hangup(files...) } // read only: a failed close loses nothing
	var readers []io.Reader
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			done()
			return nil, 0, nil, &exitError{exitFailure, err}
		}
		files, readers = append(files, f), append(readers, f)
		n := fileSize(f)
		if n < 0 || size < 0 {
			size = -1
		} else {
			size += n
		}
	}
	return io.MultiReader(readers...), size, done, nil
}

// fileSize is how long a regular file is, -1 for anything else.
func fileSize(f any) int64 {
	file, ok := f.(*os.File)
	if !ok {
		return -1
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	return info.Size()
}
