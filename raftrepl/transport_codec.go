package raftrepl

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
)

// A message is its kind, the number of the request that it is or belongs to, and fields: varints,
// bytes behind their length. Who sends is not in it: the connection says so.
//
//	append      group, term, previous index and term, committed index, entries
//	vote        group, term, last index and term, flags
//	pre-vote    group, term, last index and term
//	timeout-now group
//	install     group, version, term, last index and term, configuration and its index, size
//	call        milliseconds left, service, request: the rest
//	cancel      nothing: of a call
//	chunk       bytes of an install: the rest
//	end         whether the install is whole
//	credit      how many bytes of an install were taken
//	ping        nothing
//	batch       heartbeats and answers, each behind its length
//	answer      status, then what the request asked for, or words
//
// A group is 16 bytes of topic id and a partition, and the ids of the two replicas, sender first. Entries are their number, and for each its term,
// type and data: the first one's index is behind the previous index. Extensions are not sent: they
// are for the node that proposes.
type kind uint8

const (
	kindAppend kind = 1 + iota
	kindVote
	kindPreVote
	kindTimeoutNow
	kindInstall
	kindCall
	kindCancel
	kindChunk
	kindEnd
	kindCredit
	kindPing
	kindAnswer
	kindBatch
)

// status is how a request ended.
type status uint8

const (
	statusOK      status = iota
	statusFailed         // it was served, and failed
	statusNoGroup        // the others: it was not served
	statusBusy
	statusClosing
	statusUnknown // a kind of request that this version does not know
	statusReplica // it was for another replica: the text is the name of the one that is here
	statusRefused // who asks may not: a byte says why, as in a handshake, and then the text
	statuses
)

const (
	maxEntries       = 4096
	maxTextBytes     = 1 << 10
	maxServiceBytes  = 64
	maxConfiguration = 32 << 10
	// entries of less are copied into the message, larger ones are sent from where they are
	copyBytes = 4 << 10
)

// CodecError is a message that no peer makes.
type CodecError struct{ Problem string }

func (e *CodecError) Error() string { return "message: " + e.Problem }

// decoder reads fields; after the first problem it reads zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = &CodecError{fmt.Sprintf(format, args...)}
	}
	d.b = nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("a number is cut short or too long")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("it is cut short")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail("%d bytes are announced, %d are left", n, len(d.b))
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

// bytes reads a field of at most limit bytes. It is a part of the message.
func (d *decoder) bytes(limit int) []byte {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail("a field of %d bytes, at most %d are allowed", n, limit)
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) flag() bool {
	switch c := d.byte(); c {
	case 0, 1:
		return c == 1
	default:
		d.fail("flag %d", c)
		return false
	}
}

// route is a group and two replicas of it.
type route struct {
	group    engine.LogID
	from, to raft.ServerID
}

func (d *decoder) route() (r route) {
	r.group = d.group()
	r.from = raft.ServerID(d.bytes(maxServerBytes))
	r.to = raft.ServerID(d.bytes(maxServerBytes))
	return r
}

func (d *decoder) group() (id engine.LogID) {
	copy(id.Topic[:], d.take(len(id.Topic)))
	p := d.uvarint()
	if p > math.MaxInt32 {
		d.fail("partition %d", p)
		return engine.LogID{}
	}
	id.Partition = int32(p)
	return id
}

func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes are left over", len(d.b))
	}
	return d.err
}

// head reads what every message begins with.
func (d *decoder) head() (kind, uint64) { return kind(d.byte()), d.uvarint() }

func appendHead(b []byte, k kind, id uint64) []byte {
	return binary.AppendUvarint(append(b, byte(k)), id)
}

func appendGroup(b []byte, id engine.LogID) []byte {
	return binary.AppendUvarint(append(b, id.Topic[:]...), uint64(id.Partition))
}

func appendRoute(b []byte, r route) []byte {
	return appendBytes(appendBytes(appendGroup(b, r.group), []byte(r.from)), []byte(r.to))
}

func appendBytes(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

func appendFlag(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendUvarints(b []byte, list ...uint64) []byte {
	for _, v := range list {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// encodeAppend returns the segments of an AppendEntries. Data of large entries is in them as it is.
func encodeAppend(id uint64, to route, r *raft.AppendEntriesRequest) ([][]byte, error) {
	if len(r.Entries) > maxEntries {
		return nil, fmt.Errorf("%d entries in one request, at most %d are allowed", len(r.Entries), maxEntries)
	}
	var segments [][]byte
	b := make([]byte, 0, 128)
	b = appendRoute(appendHead(b, kindAppend, id), to)
	b = appendUvarints(b, r.Term, r.PrevLogEntry, r.PrevLogTerm, provedCommit(r), uint64(len(r.Entries)))
	for i, e := range r.Entries {
		if e.Index != r.PrevLogEntry+1+uint64(i) {
			return nil, fmt.Errorf("entry %d has index %d, behind %d", i, e.Index, r.PrevLogEntry)
		}
		if len(e.Data) > maxEntryBytes {
			return nil, fmt.Errorf("entry %d has %d bytes, at most %d can be sent", e.Index, len(e.Data), maxEntryBytes)
		}
		b = append(binary.AppendUvarint(b, e.Term), byte(e.Type))
		b = binary.AppendUvarint(b, uint64(len(e.Data)))
		if len(e.Data) < copyBytes {
			b = append(b, e.Data...)
			continue
		}
		segments = append(segments, b, e.Data)
		b = make([]byte, 0, 128)
	}
	return append(segments, b), nil
}

// appendEntries reads an AppendEntries. Data of entries is a part of the message.
//
// The committed index is cut here too: see provedCommit.
func (d *decoder) appendEntries() *raft.AppendEntriesRequest {
	r := &raft.AppendEntriesRequest{Term: d.uvarint(), PrevLogEntry: d.uvarint(), PrevLogTerm: d.uvarint(), LeaderCommitIndex: d.uvarint()}
	n := d.uvarint()
	if n > maxEntries || n > uint64(len(d.b)/3) || r.PrevLogEntry > math.MaxInt64 {
		d.fail("%d entries behind %d in %d bytes", n, r.PrevLogEntry, len(d.b))
		return r
	}
	if n > 0 {
		r.Entries = make([]*raft.Log, 0, n)
		logs := make([]raft.Log, n)
		for i := range logs {
			e := &logs[i]
			*e = raft.Log{Index: r.PrevLogEntry + 1 + uint64(i), Term: d.uvarint(), Type: raft.LogType(d.byte()), Data: d.bytes(maxEntryBytes)}
			if e.Type > raft.LogConfiguration {
				d.fail("entry of type %d", e.Type)
			}
			r.Entries = append(r.Entries, e)
		}
	}
	r.LeaderCommitIndex = provedCommit(r)
	return r
}

// provedCommit is the committed index, cut to what the request proves to be the leader's: the
// library takes the smaller of it and of its own last index, which may be of a tail that this request
// does not reach and a later one takes back. (Raft, figure 2: "index of last new entry")
func provedCommit(r *raft.AppendEntriesRequest) uint64 {
	return min(r.LeaderCommitIndex, r.PrevLogEntry+uint64(len(r.Entries)))
}

// onlyBeats says that the request only tells who leads. Others without entries prove a place in
// the log and stay behind the entries before it.
func onlyBeats(r *raft.AppendEntriesRequest) bool {
	return len(r.Entries) == 0 && r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && r.LeaderCommitIndex == 0
}

func encodeVote(id uint64, to route, r *raft.RequestVoteRequest) []byte {
	b := appendRoute(appendHead(nil, kindVote, id), to)
	return appendFlag(appendUvarints(b, r.Term, r.LastLogIndex, r.LastLogTerm), r.LeadershipTransfer)
}

func (d *decoder) vote() *raft.RequestVoteRequest {
	return &raft.RequestVoteRequest{Term: d.uvarint(), LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint(), LeadershipTransfer: d.flag()}
}

func encodePreVote(id uint64, to route, r *raft.RequestPreVoteRequest) []byte {
	return appendUvarints(appendRoute(appendHead(nil, kindPreVote, id), to), r.Term, r.LastLogIndex, r.LastLogTerm)
}

func (d *decoder) preVote() *raft.RequestPreVoteRequest {
	return &raft.RequestPreVoteRequest{Term: d.uvarint(), LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint()}
}

func encodeInstall(id uint64, to route, r *raft.InstallSnapshotRequest) ([]byte, error) {
	if len(r.Configuration) > maxConfiguration {
		return nil, fmt.Errorf("configuration of %d bytes, at most %d can be sent", len(r.Configuration), maxConfiguration)
	}
	if r.Size < 0 {
		return nil, fmt.Errorf("install of %d bytes", r.Size)
	}
	b := appendRoute(appendHead(nil, kindInstall, id), to)
	b = appendUvarints(b, uint64(r.SnapshotVersion), r.Term, r.LastLogIndex, r.LastLogTerm)
	b = appendBytes(b, r.Configuration)
	return appendUvarints(b, r.ConfigurationIndex, uint64(r.Size)), nil
}

func (d *decoder) install() *raft.InstallSnapshotRequest {
	r := &raft.InstallSnapshotRequest{SnapshotVersion: raft.SnapshotVersion(d.uvarint()), Term: d.uvarint(),
		LastLogIndex: d.uvarint(), LastLogTerm: d.uvarint(), Configuration: d.bytes(maxConfiguration), ConfigurationIndex: d.uvarint()}
	size := d.uvarint()
	if size > math.MaxInt64 {
		d.fail("install of %d bytes", size)
	}
	r.Size = int64(size)
	return r
}

// encodeAnswer answers a raft request.
func encodeAnswer(id uint64, response any, err error) []byte {
	b := appendHead(nil, kindAnswer, id)
	if err != nil {
		return encodeFailure(id, statusFailed, err.Error())
	}
	b = append(b, byte(statusOK))
	switch r := response.(type) {
	case *raft.AppendEntriesResponse:
		return appendFlag(appendFlag(appendUvarints(b, r.Term, r.LastLog), r.Success), r.NoRetryBackoff)
	case *raft.RequestVoteResponse:
		return appendFlag(appendUvarints(b, r.Term), r.Granted)
	case *raft.RequestPreVoteResponse:
		return appendFlag(appendUvarints(b, r.Term), r.Granted)
	case *raft.TimeoutNowResponse:
		return b
	case *raft.InstallSnapshotResponse:
		return appendFlag(appendUvarints(b, r.Term), r.Success)
	default:
		return encodeFailure(id, statusFailed, fmt.Sprintf("the answer is a %T", response))
	}
}

func encodeFailure(id uint64, s status, text string) []byte {
	b := append(appendHead(nil, kindAnswer, id), byte(s))
	return append(b, text[:min(len(text), maxTextBytes)]...)
}

// decodeAnswer reads the body of an answer behind its status into response, which it overwrites.
func decodeAnswer(body []byte, response any) error {
	d := decoder{b: body}
	switch r := response.(type) {
	case *raft.AppendEntriesResponse:
		*r = raft.AppendEntriesResponse{Term: d.uvarint(), LastLog: d.uvarint(), Success: d.flag(), NoRetryBackoff: d.flag()}
	case *raft.RequestVoteResponse:
		*r = raft.RequestVoteResponse{Term: d.uvarint(), Granted: d.flag()}
	case *raft.RequestPreVoteResponse:
		*r = raft.RequestPreVoteResponse{Term: d.uvarint(), Granted: d.flag()}
	case *raft.TimeoutNowResponse:
		*r = raft.TimeoutNowResponse{}
	case *raft.InstallSnapshotResponse:
		*r = raft.InstallSnapshotResponse{Term: d.uvarint(), Success: d.flag()}
	}
	return d.end()
}
