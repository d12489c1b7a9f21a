package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/internal/sock"
)

func (a *app) consume() *cobra.Command {
	var s consuming
	var from, format string
	var beginning, asJSON bool
	var timeoutMS int64
	cmd := &cobra.Command{
		Use:   "consume TOPIC... [-g GROUP | -p PARTITION,...] [-o OFFSET] [-e] [-n N]",
		Short: "Print records, and wait for more",
		Long: `consume prints records and waits for more, until Ctrl-C, -e, -n or --timeout-ms.

By default a record is its value and a newline, byte for byte. -J prints a JSON
object a line. -f takes a template:
  %t topic  %p partition  %o offset  %k key  %v value  %h headers
  %T milliseconds  %d date  %K bytes of the key  %V bytes of the value
  %%  \n \t \r \0 \\ \xHH

-o begins at ` + startForms + `;
a time is 2026-11-22, 2026-11-22T15:04:05Z, milliseconds or -90m (ago). Without
-o it begins at the end. --from-beginning is -o start.

With -g it is a member of a group: it begins where the group has got to, a new
group at the start (or with -o end at the end). What was printed is committed
every second and when the command ends; what a kill leaves uncommitted is
printed again. Several members share the partitions.

Damage ends it with 3. --skip-damage goes on behind it and warns of each place;
a group that has gone on does not come back to what it skipped.`,
		Example: `  embedlog consume orders --from-beginning -e
  embedlog consume orders -o -10 -f '%p/%o %k=%v\n'
  embedlog consume orders --group billing -n 100 -J
  embedlog consume orders -p 0,2 -o @-1h`,
		Args: func(cmd *cobra.Command, args []string) error {
			if s.pattern != "" {
				return takes(0, 0, "topics or --regex, not both")(cmd, args)
			}
			return takes(1, -1, "a topic")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, topics []string) error {
			flags := cmd.Flags()
			s.a, s.topics = a, topics
			s.timeout = time.Duration(timeoutMS) * time.Millisecond
			if beginning {
				if flags.Changed("offset") {
					return usagef("--from-beginning and -o both say where to begin")
				}
				from = "start"
			}
			var err error
			if s.start, err = parseStart(from); err != nil {
				return err
			}
			switch {
			case flags.Changed("max-messages") && s.max < 1:
				return usagef("--max-messages is at least 1, not %d", s.max)
			case flags.Changed("timeout-ms") && timeoutMS < 1:
				return usagef("--timeout-ms is at least 1, not %d", timeoutMS)
			case s.group != "" && len(s.partitions) > 0:
				return usagef("a member of a group is given its partitions; -p does not go with --group")
			case s.group != "" && s.start.kind != startBeginning && s.start.kind != startEnd:
				return usagef("a group begins where it has got to; `embedlog group reset-offsets %s` moves it (a new group: -o start or -o end)", s.group)
			case s.start.kind == startAbsolute && len(s.partitions) == 0 && len(topics) > 1:
				return usagef("-o %s is an offset of one topic, and there are %d", from, len(topics))
			case s.skipDamage && len(a.address.hosts) > 0:
				return usagef("--skip-damage looks into the files of a database: give --data DIR, not --address")
			case asJSON && format != "":
				return usagef("-J and -f both say how to print")
			}
			s.newest = s.group != "" && from != "" && s.start.kind == startEnd
			if s.pattern != "" {
				if s.filter, err = regexp.Compile("^(?:" + s.pattern + ")$"); err != nil {
					return usagef("--regex: %w", err)
				}
			}
			if s.print, err = printer(format, asJSON || a.asJSON()); err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&beginning, "from-beginning", false, "begin at the first record there is")
	f.StringVarP(&from, "offset", "o", "", "begin at "+startForms)
	f.StringVarP(&s.group, "group", "g", "", "be a member of this group")
	f.Int32SliceVarP(&s.partitions, "partition", "p", nil, "only these partitions")
	f.Int64VarP(&s.max, "max-messages", "n", 0, "stop after that many records")
	f.BoolVarP(&s.exit, "exit", "e", false, "stop at the end of what there is")
	f.Int64Var(&timeoutMS, "timeout-ms", 0, "stop when nothing came for so long")
	f.StringVarP(&format, "template", "f", "", "how to print a record")
	f.BoolVarP(&asJSON, "json", "J", false, "print JSON objects, one a line")
	f.StringVarP(&s.pattern, "regex", "r", "", "all topics whose name matches, instead of naming them")
	f.BoolVar(&s.uncommitted, "read-uncommitted", false, "records of open and aborted transactions, too")
	f.BoolVar(&s.skipDamage, "skip-damage", false, "go on behind damage, with a warning for each place")
	return cmd
}

// consuming is one run of the verb.
type consuming struct {
	a           *app
	topics      []string
	pattern     string
	filter      *regexp.Regexp
	group       string
	partitions  []int32
	start       start
	newest      bool // a new group begins at the end
	max         int64
	exit        bool
	timeout     time.Duration
	uncommitted bool
	skipDamage  bool
	print       printFunc

	c     *client
	out   *bufio.Writer
	count int64
	// at is where this run stands in each partition that it reads without a group,
	// end what was there when it began.
	at  map[sock.TopicPartition]sock.Position
	end map[sock.TopicPartition]int64
}

const (
	// pollRecords bounds one reply by number; the other side bounds it by bytes.
	pollRecords = 2000
	// pollWait is how long one request waits for records. It bounds nothing else: new
	// records end the wait, and so does Ctrl-C.
	pollWait = time.Second
	// settle is how often a member of a group that was given no partition is asked
	// about before -e ends it: there may be more members than partitions.
	settle = 20
)

func (s *consuming) run(ctx context.Context) (err error) {
	s.out = bufio.NewWriterSize(s.a.stdout, 64<<10)
	ctx, stop := whileRead(ctx, s.a.stdout)
	defer stop()
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer func() {
		if closeErr := s.c.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := s.loop(ctx); err != nil {
		if context.Cause(ctx) == errReaderGone {
			return nil // whoever read has enough: no failure, and nothing to say
		}
		if errors.Is(err, context.Canceled) || code(err) == sock.CodeCancelled {
			return &exitError{code: exitInterrupted} // the way to end it: nothing to say
		}
		return err
	}
	if isTerminal(s.a.stderr) {
		s.a.note("%s", plural(s.count, "record"))
	}
	return nil
}

// loop prints until there is a reason to end. What was printed is committed then,
// except when printing failed.
func (s *consuming) loop(ctx context.Context) error {
	last := time.Now() // when a record came
	idle := 0          // empty answers in a row
	for {
		q := sock.Poll{MaxRecords: pollRecords, Wait: pollWait}
		if s.max > 0 {
			q.MaxRecords = int(min(pollRecords, s.max-s.count))
		}
		if s.timeout > 0 {
			q.Wait = min(q.Wait, s.timeout)
		}
		if s.exit {
			q.Wait = pollWait / 10
		}
		recs, err := s.c.poll(ctx, q, s.moved)
		switch {
		case isClosing(err) || errors.Is(err, errLost):
			if err := s.reconnect(ctx); err != nil {
				return err
			}
			continue
		case err != nil:
			return errors.Join(err, s.finish(ctx))
		}
		if err := s.write(recs); err != nil {
			return err
		}
		if len(recs) > 0 {
			last, idle = time.Now(), 0
		} else {
			idle++
		}
		done, err := s.done(ctx, last, idle)
		if err != nil || done || ctx.Err() != nil {
			return errors.Join(err, ctx.Err(), s.finish(ctx))
		}
	}
}

// moved says that the consumer goes on elsewhere. Where this process holds the
// directory the database's own warning has said so, in the same words.
func (s *consuming) moved(m *sock.Moved) {
	if !s.c.mine {
		slog.New(&warnings{a: s.a}).Warn("consumer goes on at another offset", "group", s.group, "topic", m.Topic, "partition", m.Partition,
			"from", m.From, "to", m.To, "cause", m.Cause)
	}
}

// done reports whether the count, the time or the end is reached.
func (s *consuming) done(ctx context.Context, last time.Time, idle int) (bool, error) {
	switch {
	case s.max > 0 && s.count >= s.max:
		return true, nil
	case s.timeout > 0 && time.Since(last) >= s.timeout:
		return true, nil
	case !s.exit:
		return false, nil
	case s.group == "" && s.passedEnd():
		return true, nil
	case idle == 0:
		return false, nil
	}
	// Offsets may end in something that is no record, such as the end of a transaction.
	lag, err := call[sock.Lag](ctx, s.c, sock.OpLag, struct{}{})
	if err != nil {
		return false, err
	}
	return lag.Records == 0 && (lag.Assigned > 0 || idle > settle), nil
}

func (s *consuming) passedEnd() bool {
	for tp, end := range s.end {
		if s.at[tp].Offset < end {
			return false
		}
	}
	return true
}

// write prints records and sends them off: nobody waits for a full buffer.
func (s *consuming) write(recs []sock.Record) error {
	for i := range recs {
		r := &recs[i]
		if err := s.print(s.out, r); err != nil {
			return err
		}
		s.count++
		if s.at != nil {
			tp := sock.TopicPartition{Topic: r.Topic, Partition: r.Partition}
			s.at[tp] = sock.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset + 1, Epoch: r.Epoch}
		}
	}
	return s.out.Flush()
}

// finish commits what was printed. It is done after an interrupt, too; not when
// nobody may have read what was printed last.
func (s *consuming) finish(ctx context.Context) error {
	if s.group == "" || context.Cause(ctx) == errReaderGone {
		return nil
	}
	_, err := call[struct{}](context.WithoutCancel(ctx), s.c, sock.OpCommit, struct{}{})
	if isClosing(err) {
		return nil // its consumer committed when it was closed; at worst records come again
	}
	return err
}

// connect begins a session and its consumer. Who has the directory may close it just then, or be killed, as any command that was quick
// does: then there is another holder, which may be this process.
func (s *consuming) connect(ctx context.Context) error {
	for start := time.Now(); ; {
		err := s.begun(ctx)
		if !isClosing(err) && !(errors.Is(err, errLost) && time.Since(start) < patience) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(connectPause):
		}
	}
}

func (s *consuming) begun(ctx context.Context) error {
	c, err := s.a.connect(ctx, false)
	if err != nil {
		return err
	}
	if err := s.open(ctx, c); err != nil {
		return errors.Join(err, c.Close())
	}
	s.c = c
	return nil
}

// reconnect goes on where this run stands when the program that held the
// directory has closed it, or was killed.
func (s *consuming) reconnect(ctx context.Context) error {
	_ = s.c.Close() // the connection is of no more use
	return s.connect(ctx)
}

func (s *consuming) open(ctx context.Context, c *client) error {
	spec := sock.Consumer{
		Group: s.group, FromLatest: s.newest, ReadUncommitted: s.uncommitted, SkipDamage: s.skipDamage, ClientID: "embedlog-cli",
	}
	if s.group != "" {
		spec.Topics, spec.Pattern = s.topics, s.pattern
	} else {
		if s.at == nil {
			if err := s.begin(ctx, c); err != nil {
				return err
			}
		}
		for _, p := range s.at {
			spec.Assign = append(spec.Assign, p)
		}
	}
	_, err := call[struct{}](ctx, c, sock.OpConsumer, spec)
	if err != nil && len(s.topics) == 1 {
		return s.a.explain(err, s.topics[0])
	}
	return err
}

// begin finds out where to start in each partition.
func (s *consuming) begin(ctx context.Context, c *client) error {
	var topics []sock.Topic
	for _, name := range s.topics {
		list, err := call[[]sock.Topic](ctx, c, sock.OpTopics, sock.TopicsRequest{Topic: name})
		if err != nil {
			return s.a.explain(err, name)
		}
		topics = append(topics, list...)
	}
	if s.filter != nil {
		list, err := call[[]sock.Topic](ctx, c, sock.OpTopics, sock.TopicsRequest{})
		if err != nil {
			return err
		}
		for _, t := range list {
			if !t.Internal && s.filter.MatchString(t.Topic) {
				topics = append(topics, t)
			}
		}
		if len(topics) == 0 {
			return notFoundf("no topic matches %s", s.pattern)
		}
	}
	at := make(map[sock.TopicPartition]sock.Position)
	end := make(map[sock.TopicPartition]int64)
	for _, topic := range topics {
		offsets, err := s.start.resolve(ctx, c, topic)
		if err != nil {
			return err
		}
		partitions, err := choosePartitions(topic, s.partitions)
		if err != nil {
			return err
		}
		for _, n := range partitions {
			p := topic.PartitionList[n]
			readable := p.LastStable
			if s.uncommitted {
				readable = p.HighWatermark
			}
			if s.start.kind == startAbsolute && (offsets[n] < p.LogStart || offsets[n] > p.HighWatermark) {
				return fmt.Errorf("offset %d is outside of %s/%d, which holds %d to %d",
					offsets[n], topic.Topic, n, p.LogStart, p.HighWatermark)
			}
			tp := sock.TopicPartition{Topic: topic.Topic, Partition: n}
			at[tp] = sock.Position{Topic: topic.Topic, Partition: n, Offset: offsets[n], Epoch: -1}
			end[tp] = readable
		}
	}
	s.at, s.end = at, end
	return nil
}
