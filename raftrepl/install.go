package raftrepl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/x/embedlog/log"
	"github.com/x/embedlog/partition"
)

// The stream of an install. Big-endian.
//
//	0  8  "embedsnd"
//	8  2  version: 1
//	   8  index of the last entry  8 its term
//	   4  number of segments, then for each: 8 base offset  8 tag  8 bytes
//	   4  length of the checkpoint, and the checkpoint
//	   4  CRC32C of all before
//	then for each segment its bytes and 4 CRC32C of them
const (
	sendMagic   = "embedsnd"
	sendVersion = 1
	// maxSentCheckpoint bounds what is read of a checkpoint: two copies of the largest.
	maxSentCheckpoint = 128 << 20
	sendHead          = 8 + 2 + 8 + 8 + 4
	sendSegment       = 8 + 8 + 8
)

// installHead is the beginning of a stream.
type installHead struct {
	index, term uint64
	segments    []log.CapturedSegment
	ckpt        []byte
}

func (h *installHead) encode() []byte {
	be := binary.BigEndian
	b := be.AppendUint16([]byte(sendMagic), sendVersion)
	b = be.AppendUint64(be.AppendUint64(b, h.index), h.term)
	b = be.AppendUint32(b, uint32(len(h.segments)))
	for _, s := range h.segments {
		b = be.AppendUint64(be.AppendUint64(be.AppendUint64(b, uint64(s.BaseOffset)), s.Tag), uint64(s.Bytes))
	}
	b = append(be.AppendUint32(b, uint32(len(h.ckpt))), h.ckpt...)
	return be.AppendUint32(b, crc32.Checksum(b, votesTable))
}

// readInstallHead reads no more than the head, and makes memory for what has come.
func readInstallHead(r io.Reader) (*installHead, error) {
	be := binary.BigEndian
	sum := crc32.New(votesTable)
	in := io.TeeReader(r, sum)
	take := func(n int64) ([]byte, error) {
		b, err := io.ReadAll(io.LimitReader(in, n))
		if err == nil && int64(len(b)) < n {
			err = io.ErrUnexpectedEOF
		}
		return b, err
	}
	b, err := take(sendHead)
	if err != nil {
		return nil, err
	}
	if string(b[:8]) != sendMagic {
		return nil, fmt.Errorf("not an install: %w", log.ErrCorrupt)
	}
	if v := be.Uint16(b[8:]); v != sendVersion {
		return nil, fmt.Errorf("install version %d: %w", v, log.ErrNewerFormat)
	}
	h := &installHead{index: be.Uint64(b[10:]), term: be.Uint64(b[18:])}
	n := be.Uint32(b[26:])
	if n == 0 || n > log.MaxInstallSegments {
		return nil, fmt.Errorf("install of %d segments: %w", n, log.ErrCorrupt)
	}
	if b, err = take(int64(n)*sendSegment + 4); err != nil {
		return nil, err
	}
	for range n {
		h.segments = append(h.segments, log.CapturedSegment{BaseOffset: int64(be.Uint64(b)), Tag: be.Uint64(b[8:]), Bytes: int64(be.Uint64(b[16:]))})
		b = b[sendSegment:]
	}
	size := be.Uint32(b)
	if size > maxSentCheckpoint {
		return nil, fmt.Errorf("install with a checkpoint of %d bytes: %w", size, log.ErrCorrupt)
	}
	if h.ckpt, err = take(int64(size)); err != nil {
		return nil, err
	}
	return h, checkSum(r, sum)
}

// checkSum reads a checksum and compares it.
func checkSum(r io.Reader, sum hash.Hash32) error {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(b[:]) != sum.Sum32() {
		return fmt.Errorf("install: a checksum is wrong: %w", log.ErrCorrupt)
	}
	return nil
}

// installBytes is the length of the stream.
func installBytes(c *log.Capture) int64 {
	n := int64(sendHead + 4 + len(c.Checkpoint()) + 4)
	for _, s := range c.Segments {
		n += sendSegment + s.Bytes + 4
	}
	return n
}

// sendInstall writes the stream.
func sendInstall(ctx context.Context, w io.Writer, c *log.Capture, st partition.GroupState) error {
	h := installHead{index: st.Index, term: st.Epoch, segments: c.Segments, ckpt: c.Checkpoint()}
	if _, err := w.Write(h.encode()); err != nil {
		return err
	}
	for i := range c.Segments {
		// Where it is damaged it is another's to send it: copies of the damage would leave fewer that are whole.
		if err := c.CheckSegment(ctx, i); err != nil {
			return err
		}
		sum := crc32.New(votesTable)
		if err := c.CopySegment(ctx, i, io.MultiWriter(w, sum)); err != nil {
			return err
		}
		if _, err := w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
			return err
		}
	}
	return nil
}

// receiveInstall writes what comes beside the log.
func receiveInstall(r io.Reader, p *partition.Partition, index, term uint64) (*log.Incoming, error) {
	h, err := readInstallHead(r)
	if err != nil {
		return nil, err
	}
	if h.index != index || h.term != term {
		return nil, fmt.Errorf("install of entry %d of term %d, announced was %d of %d: %w", h.index, h.term, index, term, log.ErrCorrupt)
	}
	in, err := p.Log().Receive(h.ckpt, h.segments)
	if err != nil {
		return nil, err
	}
	for i := range h.segments {
		sum := crc32.New(votesTable)
		err := in.Write(i, io.TeeReader(r, sum))
		if err == nil {
			err = checkSum(r, sum)
		}
		if err != nil {
			return nil, errors.Join(err, in.Abort())
		}
	}
	return in, nil
}

// installing is the install that a group receives: one at a time.
type installing struct {
	mu     sync.Mutex
	term   uint64
	cancel context.CancelCauseFunc // nil: none
	ended  chan struct{}
}

var errNewerInstall = errors.New("a newer leader sends its log")

// begin waits for its turn. A newer leader's install ends an older one's.
func (s *installing) begin(term uint64) (ctx context.Context, end func(), err error) {
	for {
		s.mu.Lock()
		if s.cancel == nil {
			break
		}
		if s.term >= term {
			s.mu.Unlock()
			return nil, nil, errors.New("an install is under way")
		}
		s.cancel(errNewerInstall)
		ended := s.ended
		s.mu.Unlock()
		<-ended
	}
	defer s.mu.Unlock()
	ctx, s.cancel = context.WithCancelCause(context.Background())
	cancel, ended := s.cancel, make(chan struct{})
	s.term, s.ended = term, ended
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cancel = nil
		cancel(nil)
		close(ended)
	}, nil
}

// readUntil reads until ctx ends.
type readUntil struct {
	ctx context.Context
	r   io.Reader
}

func (r readUntil) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(b)
}

// Install receives the log of a leader and puts it in the place of this one. The
// library does not see it: it gets a new instance, which finds the leader's entry as the
// log's last. What it answers is what the library would have. The group's transport calls
// it, from a goroutine of its own.
func (g *Group) Install(req *raft.InstallSnapshotRequest, r io.Reader) (*raft.InstallSnapshotResponse, error) {
	g.mu.Lock()
	inst := g.inst
	if inst == nil || g.stopped {
		g.mu.Unlock()
		return nil, errNotUp
	}
	g.work.Add(1) // Stop waits
	g.mu.Unlock()
	defer g.work.Done()
	resp := &raft.InstallSnapshotResponse{RPCHeader: g.gate.header(), Term: inst.raft.CurrentTerm()}
	if req.Term < resp.Term {
		return resp, nil
	}
	ctx, end, err := g.installing.begin(req.Term)
	if err != nil {
		return nil, err
	}
	defer end()
	if has, err := g.has(req.LastLogIndex, req.LastLogTerm); has || err != nil {
		resp.Success = err == nil
		return resp, err
	}
	g.cfg.Logger.Info("a leader sends its log", "leader", string(req.ID), "index", req.LastLogIndex, "bytes", req.Size)
	in, err := receiveInstall(readUntil{ctx, r}, inst.store.p, req.LastLogIndex, req.LastLogTerm)
	if err != nil {
		if errors.Is(err, log.ErrNoSpace) {
			g.noRoom()
		}
		g.cfg.Logger.Warn("the log that a leader sends was not received", "error", err)
		return nil, fmt.Errorf("install: %w", err)
	}
	if resp.Term, err = g.putInPlace(inst, in, req); err != nil {
		return nil, fmt.Errorf("install: %w", err)
	}
	resp.Success = resp.Term <= req.Term
	return resp, nil
}

// has says whether the log holds that entry, and so all before it.
func (g *Group) has(index, term uint64) (bool, error) {
	st, _ := g.p.Group()
	if index <= st.Index {
		return true, nil
	}
	if last, _ := g.p.LastEntry(); index > last {
		return false, nil
	}
	epoch, err := g.p.Log().EpochOf(index)
	return err == nil && epoch == term, err
}

// putInPlace stops the instance, installs, and starts another. It returns the group's
// term, which is above the sender's where the install came too late.
func (g *Group) putInPlace(inst *instance, in *log.Incoming, req *raft.InstallSnapshotRequest) (term uint64, err error) {
	g.mu.Lock()
	if g.inst != inst || g.stopped || !inst.cut(errNotUp) {
		g.mu.Unlock()
		return 0, errors.Join(errNotUp, in.Abort())
	}
	g.inst, g.reason = nil, "a leader's log is being put in place"
	g.mu.Unlock()
	inst.shut()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		switch {
		case g.stopped:
		case g.p.Err() != nil:
			g.endLocked(g.p.Err())
			g.noticeLocked()
		default:
			if serr := g.startLocked(); serr != nil {
				g.endLocked(serr)
				err = errors.Join(err, serr)
				g.work.Go(g.resume)
			}
		}
	}()
	known, _ := g.cfg.Votes.get(g.cfg.ID)
	if known.term > req.Term {
		// Somebody else leads by now, and may have had us acknowledge other entries.
		return known.term, in.Abort()
	}
	if known.term < req.Term {
		if err := g.cfg.Votes.change(g.cfg.ID, func(v *vote) { v.term = max(v.term, req.Term) }); err != nil {
			return 0, errors.Join(err, in.Abort())
		}
	}
	has, err := g.has(req.LastLogIndex, req.LastLogTerm)
	if has || err != nil {
		return req.Term, errors.Join(err, in.Abort())
	}
	if err := g.p.Install(in, req.LastLogIndex); err != nil {
		if g.p.Err() == nil {
			err = errors.Join(err, in.Abort())
		}
		return 0, err
	}
	g.doubt.committed(req.LastLogIndex, req.LastLogTerm)
	return req.Term, nil
}
