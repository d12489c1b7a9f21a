package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// RepairOptions say how to repair. Nil is all defaults.
type RepairOptions struct {
	// DryRun finds out what would be done, and writes nothing. What a repair would
	// write of a damaged file is held in memory.
	DryRun bool
	// Progress is told what is looked at next: log done of total, by its directory.
	Progress func(done, total int, path string)
	Logger   *slog.Logger     // nil is silent
	Now      func() time.Time // nil is time.Now
}

// RepairedLog is a log that was not whole, and what was done about it.
type RepairedLog struct {
	Name string // orders/3, or metadata
	Path string // its directory, below the database's
	log.RepairReport
	// Missing says that the log was not there. It is made anew, empty: all its records
	// are lost.
	Missing bool
	// Err says why it could not be repaired.
	Err error
}

// Orphan is a directory that the metadata does not know. It is left as it is.
type Orphan struct {
	Path  string
	Topic string // its name, as a file in it says; empty when none does
	Bytes int64
}

// RepairReport says what Repair found and did.
type RepairReport struct {
	Logs    int           // looked at, the metadata's included
	Damaged []RepairedLog // those of them that were not whole
	Orphans []Orphan
	// Identity says that FORMAT was damaged or missing and made anew: as a member of a
	// cluster this directory is a stranger now.
	Identity bool
	// Node is the number of the node of a cluster whose directory it is; 0 for one that is alone. The damage of a node's is
	// listed, in a dry run, and never repaired.
	Node int32
	// DryRun says that nothing was written.
	DryRun bool
	// File is the name of the report that was written into the database's directory;
	// empty when nothing was found.
	File string
}

// Repair makes a closed database usable again by giving up what cannot be read: see
// log.Repair for what that does to one log. It goes through the metadata and every
// partition, lists what the metadata does not know, and writes down what it found.
// An error about one log does not keep it from the others; they are joined.
func Repair(ctx context.Context, fsys vfs.FS, o *RepairOptions) (RepairReport, error) {
	r := &repairer{ctx: ctx, fs: fsys}
	if o != nil {
		r.RepairOptions = *o
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	r.report.DryRun = r.DryRun
	if err := r.run(); err != nil {
		return r.report, fmt.Errorf("repair: %w", err)
	}
	return r.report, nil
}

type repairer struct {
	RepairOptions
	ctx    context.Context
	fs     vfs.FS
	state  *metadata
	errs   []error
	report RepairReport
}

func (r *repairer) run() error {
	newID, err := r.identify()
	if err != nil {
		return err
	}
	lock, err := r.fs.Lock(lockName)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := r.metadata(); err != nil {
		return err
	}
	if err := r.partitions(); err != nil {
		return err
	}
	if err := r.orphans(); err != nil {
		return err
	}
	if newID != nil {
		r.report.Identity = true
	}
	if len(r.report.Damaged) > 0 || r.report.Identity {
		if err := r.write(); err != nil {
			return err
		}
	}
	if newID != nil && !r.DryRun {
		// Last: with it, and not before, the directory is a database again.
		if err := r.setAsideFormat(); err != nil {
			return err
		}
		if err := replaceFile(r.fs, ".", formatName, newID.encode()); err != nil {
			return err
		}
	}
	return errors.Join(r.errs...)
}

// identify makes sure that this is a database, and one that this version knows. It
// returns a new identity when it lost its own.
func (r *repairer) identify() (*identity, error) {
	id, found, err := readIdentity(r.fs)
	if err == nil && found && id.node == 0 {
		return nil, nil
	}
	if err == nil && found {
		if r.report.Node = id.node; r.DryRun {
			return nil, nil
		}
		return nil, &InvalidNodeError{Node: id.node, Reason: nodesAreNotRepaired}
	}
	if err != nil && !errors.Is(err, log.ErrCorrupt) {
		return nil, err
	}
	if _, err := r.fs.Stat(restoringName); err == nil {
		return nil, &WrongDirectoryError{Found: restoringName}
	}
	// Without FORMAT only the metadata says that it is one.
	if files, err := log.SegmentFiles(vfs.Sub(r.fs, metaName)); err != nil || len(files) == 0 {
		return nil, &WrongDirectoryError{Found: "no " + metaName}
	}
	return &identity{cluster: newID(), directory: newID()}, nil
}

// nodesAreNotRepaired is why, and what to do. Of a log that is cut, its group would still count on what
// is gone, and its node would vote as one who has it.
const nodesAreNotRepaired = "its directory is a member of a cluster, and what is cut there others count on: nothing was changed. " +
	"Start the node: a damaged replica is fetched again from the others by itself. If it does not start, drain and remove it, " +
	"and add a node with another number and an empty directory. Without a majority of the others: embedlog cluster recover --help. " +
	"With --dry-run the damage is listed"

func (r *repairer) setAsideFormat() error {
	if _, err := r.fs.Stat(formatName); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for n := 1; ; n++ {
		as := fmt.Sprintf("%s.corrupt-%d", formatName, n)
		if _, err := r.fs.Stat(as); err == nil {
			continue
		}
		return r.fs.Rename(formatName, as)
	}
}

// log repairs one log. In a dry run all writes go to memory.
func (r *repairer) log(name, path string) (vfs.FS, error) {
	dir, err := r.directory(path)
	if err != nil {
		return nil, err
	}
	r.report.Logs++
	found := RepairedLog{Name: name, Path: path}
	found.RepairReport, found.Err = log.Repair("", &log.Options{FS: dir, NoLock: true, Logger: r.Logger, Now: r.Now})
	if found.Err != nil {
		found.Err = fmt.Errorf("%s: %w", name, found.Err)
		r.errs = append(r.errs, found.Err)
	}
	if len(found.Damage) > 0 || found.Err != nil {
		r.report.Damaged = append(r.report.Damaged, found)
	}
	return dir, nil
}

func (r *repairer) directory(path string) (vfs.FS, error) {
	if r.DryRun {
		return vfs.ScratchOf(r.fs, path)
	}
	return vfs.Sub(r.fs, path), nil
}

// metadata repairs the metadata's log and reads it.
func (r *repairer) metadata() error {
	dir, err := r.log(metadataLog, metaName)
	if err != nil {
		return err
	}
	if len(r.errs) > 0 {
		return errors.Join(r.errs...)
	}
	if !r.DryRun {
		if dir, err = vfs.ScratchOf(r.fs, metaName); err != nil { // only looked at
			return err
		}
	}
	var group partition.Replicator
	if r.report.Node > 0 {
		group = onlyLooks{}
	}
	m, err := openMetaLog(dir, true, log.NewFileCache(8), r.Logger, r.Now, group)
	if err != nil && r.report.Node > 0 {
		return fmt.Errorf("the metadata cannot be read, and without it the rest of this node's directory cannot be looked at: %w. %s", err, ReplaceNode)
	}
	if err != nil {
		// What is left of the commands does not fit together: which topics there were, the
		// directories tell a person, and nothing is guessed.
		return fmt.Errorf("the metadata cannot be read, and without it nothing else can be repaired: %w", err)
	}
	defer m.close()
	r.state = m.state
	return nil
}

// onlyLooks is the group of a log that is looked at and takes part in nothing.
type onlyLooks struct{}

func (onlyLooks) LeaderEpoch() (int32, error) {
	return 0, &partition.NotLeaderError{Leader: -1, LeaderEpoch: -1}
}

func (o onlyLooks) Propose(context.Context, int32, int64, [][]byte) (partition.Proposal, error) {
	_, err := o.LeaderEpoch()
	return nil, err
}

func (r *repairer) partitions() error {
	type place struct {
		name, path string
	}
	var all []place
	topics := inOrder(r.state.byID)
	slices.SortFunc(topics, func(a, b *topicMeta) int { return strings.Compare(a.name, b.name) })
	for _, t := range topics {
		for n := range t.partitions {
			if a := t.replicasOf(n); r.report.Node > 0 && a.epoch > 0 && !a.has(r.report.Node) {
				continue // other nodes have it
			}
			all = append(all, place{fmt.Sprintf("%s/%d", t.name, n), partitionDir(t.id, n)})
		}
	}
	for i, p := range all {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if r.Progress != nil {
			r.Progress(i, len(all), p.path)
		}
		if err := r.partition(p.name, p.path); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if r.Progress != nil {
		r.Progress(len(all), len(all), "")
	}
	return nil
}

// partition repairs a partition, and makes it anew where there is none.
func (r *repairer) partition(name, path string) error {
	infos, err := r.fs.List(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if slices.ContainsFunc(infos, func(i vfs.Info) bool { return !i.Dir && i.Name != lockName && i.Size > 0 }) {
		_, err := r.log(name, path)
		return err
	}
	r.report.Logs++
	r.report.Damaged = append(r.report.Damaged, RepairedLog{Name: name, Path: path, Missing: true, RepairReport: log.RepairReport{LostEnd: true}})
	if r.DryRun {
		return nil
	}
	if err := r.fs.Mkdir(path); err != nil {
		return err
	}
	l, err := log.Open("", &log.Options{FS: vfs.Sub(r.fs, path), NoLock: true, Logger: r.Logger, Now: r.Now})
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	for dir := path; dir != "."; {
		i := strings.LastIndex(dir, "/")
		if dir = dir[:max(i, 0)]; dir == "" {
			dir = "."
		}
		if err := r.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// orphans lists the directories that the metadata does not know.
func (r *repairer) orphans() error {
	topics, err := r.fs.List(topicsName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, info := range topics {
		if !info.Dir {
			continue
		}
		path := joinPath(topicsName, info.Name)
		id, err := ParseTopicID(info.Name)
		known := err == nil && (r.state.byID[id] != nil || r.state.deleting[id] != nil)
		if !known {
			if err := r.orphan(path); err != nil {
				return err
			}
			continue
		}
		if meta := r.state.byID[id]; meta != nil {
			parts, err := r.fs.List(path)
			if err != nil {
				return err
			}
			for _, p := range parts {
				if n, ok := parsePartitionName(p.Name); p.Dir && (!ok || n >= meta.partitions) {
					if err := r.orphan(joinPath(path, p.Name)); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func (r *repairer) orphan(path string) error {
	o := Orphan{Path: path}
	if b, err := readSmall(r.fs, joinPath(path, topicFileName)); err == nil {
		if f, err := decodeTopicFile(b); err == nil {
			o.Topic = f.name
		}
	}
	var sum func(dir string, depth int) error
	sum = func(dir string, depth int) error {
		infos, err := r.fs.List(dir)
		if err != nil {
			return err
		}
		for _, info := range infos {
			o.Bytes += info.Size
			if info.Dir && depth < 2 {
				if err := sum(joinPath(dir, info.Name), depth+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := sum(path, 0); err != nil {
		return err
	}
	r.report.Orphans = append(r.report.Orphans, o)
	return nil
}

// write puts the report into the database's directory.
func (r *repairer) write() error {
	if r.DryRun {
		return nil
	}
	now := r.Now().UTC()
	stem := "repair-" + now.Format("20060102T150405.000Z")
	for n := 0; ; n++ {
		name := stem + ".txt"
		if n > 0 {
			name = fmt.Sprintf("%s-%d.txt", stem, n)
		}
		if _, err := r.fs.Stat(name); err == nil {
			continue
		}
		r.report.File = name
		return replaceFile(r.fs, ".", name, []byte(r.report.String()))
	}
}

// String is the report as text for people.
func (r *RepairReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d logs looked at, %d not whole\n", r.Logs, len(r.Damaged))
	if r.Identity {
		b.WriteString("FORMAT was damaged or missing: the directory has another identity now\n")
	}
	for i := range r.Damaged {
		d := &r.Damaged[i]
		fmt.Fprintf(&b, "\n%s, in %s\n", d.Name, d.Path)
		switch {
		case d.Missing && r.Node > 0:
			b.WriteString("  it is missing\n")
			continue
		case d.Missing && r.DryRun:
			b.WriteString("  it is missing: it would be made anew, empty; all its records are lost\n")
			continue
		case d.Missing:
			b.WriteString("  it was missing: made anew, empty; all its records are lost\n")
			continue
		}
		for _, c := range d.Damage {
			fmt.Fprintf(&b, "  damage: %v\n", c)
		}
		if r.Node > 0 {
			continue
		}
		for _, name := range d.SetAside {
			fmt.Fprintf(&b, "  set aside: %s\n", name)
		}
		if d.LostEnd {
			b.WriteString("  records at the end are lost; their offsets will be given again\n")
		}
		if d.Err != nil {
			fmt.Fprintf(&b, "  NOT REPAIRED: %v\n", d.Err)
		} else {
			fmt.Fprintf(&b, "  it holds offsets %d to %d now\n", d.Start, d.End)
		}
		if d.File != "" && !r.DryRun {
			fmt.Fprintf(&b, "  more in %s/%s\n", d.Path, d.File)
		}
	}
	for _, o := range r.Orphans {
		fmt.Fprintf(&b, "\nnot known to the metadata, left as it is: %s, topic %q, %d bytes\n", o.Path, o.Topic, o.Bytes)
	}
	if r.Node > 0 && len(r.Damaged) > 0 {
		fmt.Fprintf(&b, "\nThis is the directory of node %d of a cluster, and is not repaired: what would be cut others count on.\n", r.Node)
		if r.Damaged[0].Name == metadataLog {
			fmt.Fprintf(&b, "Damaged metadata keeps it from starting. %s\n", ReplaceNode)
		} else {
			b.WriteString("Start the node: damaged replicas are fetched again from the others by themselves, as soon as one of them leads with a majority.\n")
		}
	}
	return b.String()
}

// metadataLog is the name of the metadata's log in a report.
const metadataLog = "metadata"
