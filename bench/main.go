// Command bench measures embedlog beside the physical limits of the machine it
// runs on: the least code that still does what the guarantee needs.
//
//	go run ./bench log            a partition and its log, beside the machine's limits
//	go run ./bench db             the public API, beside what it stands on
//	go run ./bench views          views and Nexmark's queries, beside reading the log and SQLite
//	go run ./bench kafka          the Kafka listener over loopback, beside bare TCP
//	go run ./bench raft           three replicas over loopback, beside bare TCP and syncs
//	go run ./bench limits         the limits of the log alone
//	go run ./bench log --rows wake
//
// A row has a limit and, when the thing it measures exists, ours. Both run in
// turn, repetition by repetition, and what counts is the median of the ratios
// of repetitions: noise of the machine that lasts longer than a repetition hits
// both. README.md beside this file has the targets and how to read the table.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		os.Exit(childMain(os.Args[2:], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == kafkaChild {
		os.Exit(kafkaChildMain(os.Args[2:], os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == raftChild {
		os.Exit(raftChildMain(os.Args[2:], os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `bench measures embedlog beside the limits of this machine.

usage: bench log|db|views|kafka|raft|limits [flags]

  log      a partition and its log: the machine's limit, ours, and their ratio
  db       the public API: what it stands on, ours, and their ratio
  views    views and Nexmark's queries: reading the same log, or SQLite, ours, and their ratio
  kafka    the Kafka listener over loopback: bare TCP, ours, and their ratio
  raft     three replicas over loopback: bare TCP, write and sync, ours, and their ratio
  limits   the limits of the log alone

flags:
`

// config is what the flags say.
type config struct {
	suite      suite
	limitsOnly bool
	rows       *regexp.Regexp
	reps       int
	seconds    time.Duration // how long a repetition of a row bound by time lasts
	bytes      int64         // how much a repetition of a row bound by memory writes
	dir        string
	list       bool
	check      bool
	kills      int           // of raft failover
	partitions []int         // of raft scale
	idle       time.Duration // how long raft scale looks at an idle cluster
	profile    string        // where profiles of the Kafka server or the nodes go
}

// errHelp says that the usage was asked for and printed.
var errHelp = errors.New("help")

func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stdout)
	switch {
	case errors.Is(err, errHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 2
	}
	if c.suite == suiteKafka {
		return runKafka(c, stdout, stderr)
	}
	if c.suite == suiteRaft {
		return runRaft(c, stdout, stderr)
	}
	selected := c.selected(rows())
	if len(selected) == 0 {
		fmt.Fprintf(stderr, "bench: --rows %s matches no row; --list shows them\n", c.rows)
		return 2
	}
	if c.list {
		for _, r := range selected {
			fmt.Fprintf(stdout, "%s\n", r.name)
		}
		return 0
	}
	missed, err := measureAll(c, selected, stdout)
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	case missed > 0 && c.check:
		fmt.Fprintf(stderr, "bench: %d rows missed their target\n", missed)
		return 1
	}
	return 0
}

// parse reads and judges the flags. All that is wrong is reported at once.
func parse(args []string, stdout io.Writer) (config, error) {
	var c config
	if len(args) == 0 {
		return c, errors.New("log, db, views, kafka, raft or limits? --help shows the usage")
	}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(io.Discard) // errors are returned, and the usage is printed where it was asked for
	pattern := set.String("rows", "", "measure only rows whose name matches this regular `expression`")
	reps := set.Int("reps", 5, "repetitions of each row")
	seconds := set.Float64("seconds", 0.3, "length of a repetition of rows bound by time: durable, interval")
	mib := set.Int64("mib", 256, "`MiB` that a repetition of the other rows writes or reads")
	dir := set.String("dir", "", "directory to work in, on the disk to be measured (default: the system's temporary directory)")
	short := set.Bool("short", false, "smaller: 3 repetitions, 0.2 seconds, 64 MiB, 10 kills, 10 and 100 partitions, where those flags are not given")
	list := set.Bool("list", false, "print the names of the rows and stop")
	check := set.Bool("check", false, "exit with status 1 when a target is missed")
	profile := set.String("profile", "", "write profiles of views, of the Kafka server, or of the nodes, to this `directory`")
	kills := set.Int("kills", 100, "how often raft failover kills the leader")
	partitions := set.String("partitions", "10,100,300,1000", "`numbers` of partitions for raft scale")
	idle := set.Float64("idle", 20, "`seconds` for which raft scale looks at an idle cluster")
	help := func() error {
		fmt.Fprint(stdout, usage)
		set.SetOutput(stdout)
		set.PrintDefaults()
		return errHelp
	}
	switch args[0] {
	case "log":
	case "db":
		c.suite = suiteDB
	case "views":
		c.suite = suiteViews
	case "kafka":
		c.suite = suiteKafka
	case "raft":
		c.suite = suiteRaft
	case "limits":
		c.limitsOnly = true
	case "help", "-h", "-help", "--help":
		return c, help()
	default:
		return c, fmt.Errorf("%q is neither log, db, views, kafka, raft nor limits; --help shows the usage", args[0])
	}
	if err := set.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return c, help()
	} else if err != nil {
		return c, err
	}
	if *short {
		given := map[string]bool{}
		set.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["reps"] {
			*reps = 3
		}
		if !given["seconds"] {
			*seconds = 0.2
		}
		if !given["mib"] {
			*mib = 64
		}
		if !given["kills"] {
			*kills = 10
		}
		if !given["partitions"] {
			*partitions = "10,100"
		}
		if !given["idle"] {
			*idle = 5
		}
	}
	var wrong []error
	if set.NArg() > 0 {
		wrong = append(wrong, fmt.Errorf("unexpected argument %q", set.Arg(0)))
	}
	re, err := regexp.Compile(*pattern)
	if err != nil {
		wrong = append(wrong, fmt.Errorf("--rows: %v", err))
	}
	if *reps < 1 || *reps > 1000 {
		wrong = append(wrong, fmt.Errorf("--reps %d is not between 1 and 1000", *reps))
	}
	if !(*seconds >= 0.01 && *seconds <= 600) { // written so that NaN is refused
		wrong = append(wrong, fmt.Errorf("--seconds %v is not between 0.01 and 600", *seconds))
	}
	if *mib < 8 || *mib > 1024 {
		wrong = append(wrong, fmt.Errorf("--mib %d is not between 8 and 1024: that much is mapped and kept in memory", *mib))
	}
	if *kills < 1 || *kills > 10_000 {
		wrong = append(wrong, fmt.Errorf("--kills %d is not between 1 and 10000", *kills))
	}
	if !(*idle >= 1 && *idle <= 3600) {
		wrong = append(wrong, fmt.Errorf("--idle %v is not between 1 and 3600", *idle))
	}
	for _, s := range strings.Split(*partitions, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 10_000 {
			wrong = append(wrong, fmt.Errorf("--partitions has %q, which is no number between 1 and 10000", s))
		}
		c.partitions = append(c.partitions, n)
	}
	if *dir == "" {
		*dir = os.TempDir()
	}
	if info, err := os.Stat(*dir); err != nil {
		wrong = append(wrong, fmt.Errorf("--dir: %v", err))
	} else if !info.IsDir() {
		wrong = append(wrong, fmt.Errorf("--dir %s is not a directory", *dir))
	}
	if *profile != "" && c.suite != suiteKafka && c.suite != suiteRaft && c.suite != suiteViews {
		wrong = append(wrong, errors.New("--profile is for views, kafka and raft"))
	} else if info, err := os.Stat(*profile); *profile != "" && (err != nil || !info.IsDir()) {
		wrong = append(wrong, fmt.Errorf("--profile %s is not a directory", *profile))
	}
	c.kills, c.idle = *kills, time.Duration(*idle*float64(time.Second))
	c.rows, c.reps, c.dir, c.list, c.check, c.profile = re, *reps, *dir, *list, *check, *profile
	c.seconds = time.Duration(*seconds * float64(time.Second))
	c.bytes = *mib << 20
	return c, errors.Join(wrong...)
}

func (c config) selected(all []*row) []*row {
	var some []*row
	for _, r := range all {
		if r.suite == c.suite && c.rows.MatchString(r.name) {
			some = append(some, r)
		}
	}
	return some
}
