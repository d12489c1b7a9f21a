//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/x/embedlog/raftrepl"
)

func main() {
	var err error
	if text := os.Getenv(nodeVariable); text != "" {
		err = serveNode(text)
	} else if text := os.Getenv(clientsVariable); text != "" {
		err = serveClients(text)
	} else {
		err = command()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "netfault:", err)
		os.Exit(1)
	}
}

// config is what the command was told.
type config struct {
	time        time.Duration
	within      time.Duration
	seed        uint64
	dir         string
	rate, bytes int
	partitions  int
	diskBytes   int64
	window      time.Duration
	times, keep bool
	must, fast  bool
	only        string
}

func command() error {
	var c config
	flag.DurationVar(&c.time, "for", 2*time.Minute, "how long harm is done")
	flag.DurationVar(&c.within, "within", 0, "do harm for less than -for when the begin took so long that the whole would end later than this; 0 is no limit")
	flag.Uint64Var(&c.seed, "seed", rand.Uint64(), "of what is random; what the system does is not repeatable")
	flag.StringVar(&c.dir, "dir", "", "empty `directory` for disks and histories; without one a temporary one")
	flag.IntVar(&c.rate, "rate", 600, "records a second that Kafka clients send, and about as many those of the Go door")
	flag.IntVar(&c.bytes, "bytes", 100, "size of a record's value")
	flag.IntVar(&c.partitions, "partitions", 3, "partitions of each of three topics")
	flag.Int64Var(&c.diskBytes, "disk", 4<<30, "bytes of each node's disk, in a sparse file")
	flag.DurationVar(&c.window, "window", 10*time.Second, "the longest time without an acknowledgement while a majority must take records")
	flag.BoolVar(&c.times, "times", false, "fail when -window was passed, too")
	flag.BoolVar(&c.keep, "keep", false, "leave the files, whatever comes out")
	flag.BoolVar(&c.must, "must", false, "fail where the machine does not allow this, instead of saying so")
	flag.BoolVar(&c.fast, "fast", false, "nodes have the timing named fast")
	flag.StringVar(&c.only, "only", "", "only faults of this `name`; \"none\" is no fault")
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, `netfault lets three nodes of a cluster work as processes in network namespaces, each on a
disk of its own, does harm to them every 5 to 10 seconds, and checks what clients saw.

  go run ./internal/netfault -for 2m -seed 7

It takes root on Linux. It exits with 1 when something was lost, duplicated, reordered or torn, or
when nothing could be said; then it leaves its files.

`)
		flag.PrintDefaults()
		fmt.Fprintln(os.Stderr, "\nFaults:")
		for _, f := range kinds {
			fmt.Fprintln(os.Stderr, "  "+f.name)
		}
	}
	flag.Parse()
	if c.only != "" && c.only != "none" && !slices.ContainsFunc(kinds, func(f fault) bool { return f.name == c.only }) {
		return fmt.Errorf("there is no fault named %q", c.only)
	}
	if why := lacks(); why != "" {
		if c.must {
			return errors.New(why)
		}
		fmt.Println("SKIP: nothing was tested, because this machine cannot do it:", why)
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.run(ctx)
}

// lacks says what is missing here; empty is nothing.
func lacks() string {
	if os.Getuid() != 0 {
		return "it takes root, for network namespaces and mounts"
	}
	for _, tool := range []string{"ip", "nft", "nsenter", "mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is missing"
		}
	}
	if err := try(); err != nil {
		return err.Error()
	}
	return ""
}

// try makes a namespace with a link and rules, and a disk, as a run does, and takes them away again: root may not
// do so everywhere.
func try() error {
	dir, err := os.MkdirTemp("", "embedlog-netfault-try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n := network{prefix: fmt.Sprintf("embedlog-nf-try-%d", os.Getpid())}
	err = n.build(1)
	d, diskErr := newDisk(dir, n.prefix, 1, 16<<20)
	return errors.Join(err, diskErr, d.remove(), n.remove())
}

// harness is a run under way.
type harness struct {
	config
	out     io.Writer
	net     network
	disks   [nodes + 1]*disk
	procs   [nodes + 1]*process
	lives   [nodes + 1]int32
	logs    []io.Closer
	clients *process
	specs   [nodes + 1]nodeSpec
	done    []done
	noSlow  error    // why disks cannot be slowed
	faults  []string // what nodes and the harness complained of

	mu      sync.Mutex
	state   state
	moments []moment
}

func (h *harness) logf(format string, args ...any) {
	fmt.Fprintf(h.out, "%s "+format+"\n", append([]any{time.Now().Format("15:04:05.000")}, args...)...)
}

func (h *harness) each() iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := 1; n <= nodes; n++ {
			if !yield(n) {
				return
			}
		}
	}
}

// change notes what is wrong from now on.
func (h *harness) change(f func(*state)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.state)
	h.moments = append(h.moments, moment{time.Now(), h.state.majority()})
}

func (h *harness) now() state {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state
}

// run is the whole of it.
func (c config) run(ctx context.Context) (err error) {
	fmt.Printf("seed %d; three nodes and Kafka clients in namespaces of their own\n", c.seed)
	given := c.dir != ""
	if !given {
		if c.dir, err = os.MkdirTemp("", "embedlog-netfault-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	h := &harness{config: c, out: os.Stdout}
	h.net.prefix = fmt.Sprintf("embedlog-nf-%d", os.Getpid())
	bad, err := h.whole(ctx)
	err = errors.Join(err, h.remove())
	switch {
	case err != nil:
		return fmt.Errorf("%w\nseed %d, files in %s", err, c.seed, c.dir)
	case len(bad) > 0:
		return fmt.Errorf("FAILED:\n  %s\nseed %d, files in %s", strings.Join(bad, "\n  "), c.seed, c.dir)
	case c.keep || given:
		fmt.Println("files in", c.dir)
		return nil
	}
	return os.RemoveAll(c.dir)
}

// remove ends what still runs, and takes away disks and namespaces.
func (h *harness) remove() error {
	for _, p := range append(h.procs[:], h.clients) {
		if p != nil {
			_ = p.kill()
		}
	}
	var bad []error
	for _, d := range h.disks {
		if d != nil {
			if h.keep || len(h.faults) > 0 {
				bad = append(bad, run("cp", "-a", "--sparse=always", d.dir, d.dir+".kept"))
			}
			bad = append(bad, d.remove())
		}
	}
	for _, f := range h.logs {
		bad = append(bad, f.Close())
	}
	return errors.Join(append(bad, h.net.remove())...)
}

// whole builds, lets work, does harm, checks.
func (h *harness) whole(ctx context.Context) (bad []string, err error) {
	begun := time.Now()
	if err := h.build(); err != nil {
		return nil, err
	}
	if h.noSlow != nil {
		if h.only == slowDisk {
			return nil, h.noSlow
		}
		h.logf("without the fault %q: %v", slowDisk, h.noSlow)
	}
	for n := range h.each() {
		if err := h.start(n); err != nil {
			return nil, err
		}
	}
	if err := h.until(ctx, 2*time.Minute, "all nodes are ready", func() bool {
		return !slices.ContainsFunc(h.procs[1:], func(p *process) bool { return !p.isReady() })
	}); err != nil {
		return nil, err
	}
	if err := h.procs[1].tell(wordMake); err != nil {
		return nil, err
	}
	if err := h.until(ctx, 2*time.Minute, "the topics are made", func() bool { return h.procs[1].hasDone(wordMake) }); err != nil {
		return nil, err
	}
	for n := range h.each() {
		if err := h.procs[n].tell(wordWork); err != nil {
			return nil, err
		}
	}
	if err := h.startClients(); err != nil {
		return nil, err
	}
	wait(ctx, 3*time.Second)
	h.logf("load is on; a fault every 5 to 10 s, for %v", h.harmTime(time.Since(begun)).Round(time.Second))
	h.moments = nil // what was before does not count
	h.change(func(*state) {})
	limit, cancel := context.WithTimeout(ctx, h.harmTime(time.Since(begun)))
	defer cancel()
	if h.only == "none" {
		<-limit.Done()
	} else if err := h.harm(limit); err != nil {
		return nil, err
	}
	wait(ctx, 5*time.Second) // a duty of five seconds at least, after the last one
	end := time.Now()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.logf("%d faults were done; load goes off", len(h.done))
	if err := h.settle(ctx); err != nil {
		return nil, err
	}
	text, failed, err := h.judge(end)
	fmt.Fprint(h.out, text)
	h.faults = append(h.faults, failed...)
	return h.faults, err
}

// The end of a run takes a minute: clients finish what they have begun, everything is read and compared. Harm is done for
// half a minute at least.
const (
	endTakes  = 75 * time.Second
	leastHarm = 30 * time.Second
)

// harmTime is how long harm is done, when it begins so long after the run has.
func (c *config) harmTime(after time.Duration) time.Duration {
	if c.within <= 0 {
		return c.time
	}
	return min(c.time, max(c.within-endTakes-after, leastHarm))
}

// build makes namespaces, disks, certificates.
func (h *harness) build() error {
	if err := h.net.build(1, 2, 3, client); err != nil {
		return err
	}
	ca, err := raftrepl.NewCA(clusterName)
	if err != nil {
		return err
	}
	peers := map[int32]string{}
	for n := range h.each() {
		peers[int32(n)] = address(int32(n)) + ":" + peerPort
	}
	for n := range h.each() {
		if h.disks[n], err = newDisk(h.dir, h.net.prefix, int32(n), h.diskBytes); err != nil {
			return err
		}
		if h.disks[n].group == "" {
			h.noSlow = h.disks[n].noGroup
		}
		cert, key, err := ca.Issue(int32(n))
		if err != nil {
			return err
		}
		h.specs[n] = nodeSpec{
			Node: int32(n), Dir: filepath.Join(h.disks[n].dir, "db"), Notes: h.notes(n), IP: address(int32(n)), Peers: peers,
			CA: ca.CertPEM(), Cert: cert, Key: key, Seed: h.seed, Partitions: h.partitions, RecordBytes: h.bytes,
			Rate: max(h.rate/nodes, 1), Fast: h.fast,
		}
		h.state.dead[n] = true
	}
	return nil
}

func (h *harness) notes(n int) string {
	return filepath.Join(h.dir, fmt.Sprintf("notes%d.jsonl", n))
}

func (h *harness) logFile(name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(h.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err == nil {
		h.logs = append(h.logs, f)
	}
	return f, err
}

// start starts a node; it works again as soon as it is ready.
func (h *harness) start(n int) error {
	f, err := h.logFile(fmt.Sprintf("node%d", n))
	if err != nil {
		return err
	}
	spec := h.specs[n]
	spec.Life = h.lives[n]
	h.lives[n]++
	cmd, err := inNamespace(h.net.name(int32(n)), nodeVariable, &spec, f)
	if err != nil {
		return err
	}
	p, err := start(cmd)
	if err != nil {
		return err
	}
	h.procs[n] = p
	if err := h.disks[n].join(cmd.Process.Pid); err != nil {
		return err
	}
	h.change(func(s *state) { s.dead[n] = false })
	if spec.Life > 0 {
		return p.tell(wordWork)
	}
	return nil
}

func (h *harness) kill(n int) error {
	h.change(func(s *state) { s.dead[n] = true })
	if err := h.procs[n].kill(); err != nil {
		return fmt.Errorf("node %d %w: see node%d.log", n, err, n)
	}
	h.faults = append(h.faults, h.said(n)...)
	return nil
}

// said are the faults that a node complained of.
func (h *harness) said(n int) (list []string) {
	for _, text := range h.procs[n].faults() {
		list = append(list, fmt.Sprintf("node %d: %s", n, text))
	}
	return list
}

// watch says when a process has ended by itself.
func (h *harness) watch() error {
	for n := range h.each() {
		select {
		case <-h.procs[n].gone:
			return fmt.Errorf("node %d ended by itself: %v: see node%d.log", n, h.procs[n].err, n)
		default:
		}
	}
	select {
	case <-h.clients.gone:
		return fmt.Errorf("the clients ended by themselves: %v: see clients.log", h.clients.err)
	default:
	}
	return nil
}

// leader is a node that leads some log, and which.
func (h *harness) leader(rnd *rand.Rand) (node int, of string) {
	newest := map[string]leadership{}
	for n := range h.each() {
		r, heard := h.procs[n].status()
		if time.Since(heard) > 3*time.Second {
			continue
		}
		for _, l := range r.Leads {
			if l.Leader >= 1 && l.Leader <= nodes && l.Epoch > newest[l.Log].Epoch {
				newest[l.Log] = l
			}
		}
	}
	maps.DeleteFunc(newest, func(name string, _ leadership) bool { return strings.HasPrefix(name, "__") })
	names := slices.Sorted(maps.Keys(newest))
	if len(names) == 0 {
		return 1 + rnd.IntN(nodes), "nothing that is known"
	}
	l := newest[names[rnd.IntN(len(names))]]
	if rnd.IntN(3) == 0 && newest["meta"].Leader > 0 {
		l = newest["meta"]
	}
	count := 0
	for _, other := range newest {
		if other.Leader == l.Leader {
			count++
		}
	}
	return int(l.Leader), fmt.Sprintf("%s and %d of %d others", l.Log, count-1, len(newest)-1)
}

// startClients starts the Kafka clients.
func (h *harness) startClients() error {
	f, err := h.logFile("clients")
	if err != nil {
		return err
	}
	spec := clientsSpec{Dir: h.dir, Partitions: h.partitions, RecordBytes: h.bytes, Rate: h.rate, Seed: h.seed}
	var servers []string
	for n := range h.each() {
		servers = append(servers, address(int32(n))+":"+kafkaPort)
		spec.Beside = append(spec.Beside, h.notes(n))
	}
	spec.Servers = strings.Join(servers, ",")
	cmd, err := inNamespace(h.net.name(client), clientsVariable, &spec, f)
	if err != nil {
		return err
	}
	result, err := os.Create(filepath.Join(h.dir, "verdict.json"))
	if err != nil {
		return err
	}
	h.logs = append(h.logs, result)
	cmd.Stdout = result
	h.clients, err = startSilent(cmd)
	return err
}

// until waits for something.
func (h *harness) until(ctx context.Context, most time.Duration, what string, f func() bool) error {
	for begun := time.Now(); !f(); {
		if time.Since(begun) > most {
			return fmt.Errorf("after %v it is not so that %s", most, what)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for n := range h.each() {
			select {
			case <-h.procs[n].gone:
				return fmt.Errorf("node %d ended by itself: %v: see node%d.log", n, h.procs[n].err, n)
			default:
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// settle ends the load, lets the clients check, and stops the nodes when all replicas are whole.
func (h *harness) settle(ctx context.Context) error {
	for n := range h.each() {
		if err := h.procs[n].tell(wordRest); err != nil {
			return err
		}
	}
	if err := h.until(ctx, 2*time.Minute, "the Go door's clients have ended", func() bool {
		return !slices.ContainsFunc(h.procs[1:], func(p *process) bool { return !p.hasDone(wordRest) })
	}); err != nil {
		return err
	}
	if err := h.clients.tell("end"); err != nil {
		return err
	}
	if err := h.until(ctx, 8*time.Minute, "the Kafka clients have ended and checked", func() bool {
		select {
		case <-h.clients.gone:
			return true
		default:
			return false
		}
	}); err != nil {
		return err
	}
	behind := func() (list []string) {
		for n := range h.each() {
			r, heard := h.procs[n].status()
			if time.Since(heard) > 2*time.Second {
				list = append(list, fmt.Sprintf("node %d says nothing", n))
			}
			list = append(list, r.Behind...)
		}
		return list
	}
	quiet := time.Now()
	if err := h.until(ctx, 2*time.Minute, "all replicas have everything", func() bool {
		if len(behind()) > 0 {
			quiet = time.Now()
		}
		return time.Since(quiet) > time.Second
	}); err != nil {
		h.faults = append(h.faults, fmt.Sprintf("%v: %s", err, strings.Join(behind(), "; ")))
	}
	var wait sync.WaitGroup
	var ends [nodes + 1]error
	for n := range h.each() {
		h.faults = append(h.faults, h.said(n)...)
		wait.Go(func() { ends[n] = h.procs[n].stop(time.Minute) })
	}
	wait.Wait()
	for n := range h.each() {
		if ends[n] != nil {
			h.faults = append(h.faults, fmt.Sprintf("node %d did not end well: %v: see node%d.log", n, ends[n], n))
		}
		h.faults = append(h.faults, h.said(n)...)
	}
	return nil
}

// judge judges what is left.
func (h *harness) judge(end time.Time) (text string, bad []string, err error) {
	e := evidence{
		notes: []string{filepath.Join(h.dir, "clients", "history.jsonl")}, partitions: h.partitions,
		moments: h.moments, end: end, done: h.done, window: h.window, strict: h.times,
	}
	raw, err := os.ReadFile(filepath.Join(h.dir, "verdict.json"))
	if err == nil {
		err = json.Unmarshal(raw, &e.verdict)
	}
	if err != nil {
		return "", nil, fmt.Errorf("the clients said nothing (see clients.log): %w", err)
	}
	for n := range h.each() {
		e.dirs = append(e.dirs, h.specs[n].Dir)
		e.notes = append(e.notes, h.notes(n))
	}
	return e.judge()
}
