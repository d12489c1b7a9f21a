package dump

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/x/embedlog/log"
)

// What is printed: a struct is a line, its tags the names in JSON.

// hex is how ids and tags are written: as numbers they would lose digits in JSON.
type hex uint64

func (x hex) String() string               { return fmt.Sprintf("%016x", uint64(x)) }
func (x hex) MarshalText() ([]byte, error) { return []byte(x.String()), nil }

// when is a time for people; -1 and below is none.
func when(ms int64) string {
	if ms < 0 {
		return "no time"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

type checkpointLine struct {
	Type            string `json:"type"`
	LogID           hex    `json:"log_id"`
	Start           int64  `json:"log_start_offset"`
	BoundaryIndex   uint64 `json:"boundary_index"`
	BoundaryEpoch   uint64 `json:"boundary_epoch"`
	FirstComplete   uint64 `json:"first_complete_index"`
	DurableSegment  int64  `json:"durable_segment"`
	DurablePosition int64  `json:"durable_position"`
	CutTag          hex    `json:"cut_tag"`
	CutPosition     int64  `json:"cut_position"`
	Running         int64  `json:"running_millis"`
	StateBytes      int    `json:"state_bytes"`
}

func (l *checkpointLine) text(w io.Writer) {
	fmt.Fprintf(w, "checkpoint: log %v, start %d, durable to byte %d of segment %d, boundary index %d epoch %d, first complete index %d, ran for %v, state of %d bytes",
		l.LogID, l.Start, l.DurablePosition, l.DurableSegment, l.BoundaryIndex, l.BoundaryEpoch, l.FirstComplete, time.Duration(l.Running)*time.Millisecond, l.StateBytes)
	if l.CutTag != 0 {
		fmt.Fprintf(w, ", cut at byte %d of tag %v", l.CutPosition, l.CutTag)
	}
}

type segmentLine struct {
	Type          string `json:"type"`
	File          string `json:"file"`
	Bytes         int64  `json:"bytes"`
	LogID         hex    `json:"log_id"`
	Tag           hex    `json:"tag"`
	BaseOffset    int64  `json:"base_offset"`
	BaseIndex     uint64 `json:"base_index"`
	PreviousEpoch uint64 `json:"previous_epoch"`
	Created       int64  `json:"created"`
	Running       int64  `json:"running_millis"`
	Compacted     bool   `json:"compacted"`
	EndOffset     int64  `json:"end_offset,omitempty"`
	EndIndex      uint64 `json:"end_index,omitempty"`
	Cleaned       int64  `json:"cleaned_offset,omitempty"`
}

func (l *segmentLine) text(w io.Writer) {
	fmt.Fprintf(w, "segment %s: %d bytes, log %v, tag %v, base offset %d, base index %d, previous epoch %d, created %s",
		l.File, l.Bytes, l.LogID, l.Tag, l.BaseOffset, l.BaseIndex, l.PreviousEpoch, when(l.Created))
	if l.Compacted {
		fmt.Fprintf(w, ", compacted: up to offset %d, index %d, cleaned below %d", l.EndOffset, l.EndIndex, l.Cleaned)
	}
}

type frameLine struct {
	Type       string `json:"type"`
	Position   int64  `json:"position"`
	Bytes      int64  `json:"bytes"`
	Kind       string `json:"kind"`
	Offset     int64  `json:"offset"`
	Next       int64  `json:"next_offset"`
	FirstIndex uint64 `json:"first_index"`
	Index      uint64 `json:"index"`
	Epoch      uint64 `json:"epoch"`
	Durable    int64  `json:"durable"`
}

func (l *frameLine) text(w io.Writer) {
	if l.Type == "mark" {
		fmt.Fprintf(w, "  mark at %d: durable, next offset %d, index %d, epoch %d", l.Position, l.Offset, l.Index, l.Epoch)
		return
	}
	fmt.Fprintf(w, "  frame at %d: %d bytes, %s, ", l.Position, l.Bytes, l.Kind)
	if l.Next > l.Offset {
		fmt.Fprintf(w, "offsets %d-%d", l.Offset, l.Next-1)
	} else {
		fmt.Fprintf(w, "next offset %d", l.Offset)
	}
	if l.FirstIndex == l.Index {
		fmt.Fprintf(w, ", index %d", l.Index)
	} else {
		fmt.Fprintf(w, ", indexes %d-%d", l.FirstIndex, l.Index)
	}
	fmt.Fprintf(w, ", epoch %d, durable to %d", l.Epoch, l.Durable)
}

type batchLine struct {
	Type          string `json:"type"`
	BaseOffset    int64  `json:"base_offset"`
	LastOffset    int64  `json:"last_offset"`
	Records       int32  `json:"records"`
	Bytes         int    `json:"bytes"`
	CRC           uint32 `json:"crc"`
	Compression   string `json:"compression"`
	LeaderEpoch   int32  `json:"leader_epoch"`
	BaseTimestamp int64  `json:"base_timestamp"`
	MaxTimestamp  int64  `json:"max_timestamp"`
	AppendTime    bool   `json:"append_time"`
	Transactional bool   `json:"transactional"`
	Control       bool   `json:"control"`
	DeleteHorizon *int64 `json:"delete_horizon,omitempty"`
	ProducerID    int64  `json:"producer_id"`
	ProducerEpoch int16  `json:"producer_epoch"`
	BaseSequence  int32  `json:"base_sequence"`
}

func batchOf(h *log.BatchHeader) *batchLine {
	l := &batchLine{
		Type: "batch", BaseOffset: h.BaseOffset, LastOffset: h.LastOffset(), Records: h.Count, Bytes: h.Size(), CRC: h.CRC,
		Compression: h.Attributes.Codec().String(), LeaderEpoch: h.LeaderEpoch, BaseTimestamp: h.BaseTimestamp, MaxTimestamp: h.MaxTimestamp,
		AppendTime: h.Attributes.Has(log.AppendTime), Transactional: h.Attributes.Has(log.Transactional), Control: h.Attributes.Has(log.Control),
		ProducerID: h.ProducerID, ProducerEpoch: h.ProducerEpoch, BaseSequence: h.BaseSequence,
	}
	if ms, ok := h.DeleteHorizon(); ok {
		l.DeleteHorizon = &ms
	}
	return l
}

func (l *batchLine) text(w io.Writer) {
	fmt.Fprintf(w, "    batch %d-%d: %d records, %d bytes, compression %s, crc %08x, leader epoch %d, max time %s",
		l.BaseOffset, l.LastOffset, l.Records, l.Bytes, l.Compression, l.CRC, l.LeaderEpoch, when(l.MaxTimestamp))
	for _, f := range []struct {
		set  bool
		name string
	}{{l.AppendTime, "append time"}, {l.Transactional, "transactional"}, {l.Control, "control"}} {
		if f.set {
			fmt.Fprintf(w, ", %s", f.name)
		}
	}
	if l.DeleteHorizon != nil {
		fmt.Fprintf(w, ", delete horizon %s", when(*l.DeleteHorizon))
	}
	if l.ProducerID >= 0 {
		fmt.Fprintf(w, ", producer %d epoch %d sequence %d", l.ProducerID, l.ProducerEpoch, l.BaseSequence)
	}
}

type headerLine struct {
	Key    string  `json:"key"`
	Value  *string `json:"value"`
	Base64 []byte  `json:"value_base64,omitempty"`
}

type recordLine struct {
	Type        string       `json:"type"`
	Offset      int64        `json:"offset"`
	Timestamp   int64        `json:"timestamp"`
	Key         *string      `json:"key"`
	KeyBase64   []byte       `json:"key_base64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 []byte       `json:"value_base64,omitempty"`
	Headers     []headerLine `json:"headers,omitempty"`
	Control     string       `json:"control,omitempty"`
	Coordinator *int32       `json:"coordinator_epoch,omitempty"`
	Decoded     any          `json:"decoded,omitempty"`
}

// stringOf is b as a string where it is one, otherwise as bytes for base64.
func stringOf(b []byte) (*string, []byte) {
	if b == nil {
		return nil, nil
	}
	if !utf8.Valid(b) {
		return nil, b
	}
	s := string(b)
	return &s, nil
}

func (d *dumper) recordOf(rec *log.Record, h *log.BatchHeader) *recordLine {
	l := &recordLine{Type: "record", Offset: rec.Offset, Timestamp: rec.Timestamp}
	l.Key, l.KeyBase64 = stringOf(rec.Key)
	l.Value, l.ValueBase64 = stringOf(rec.Value)
	for _, x := range rec.Headers {
		v, b := stringOf(x.Value)
		l.Headers = append(l.Headers, headerLine{x.Key, v, b})
	}
	if h.Attributes.Has(log.Control) {
		if t, epoch, err := log.ParseControl(rec); err == nil {
			l.Control = controlName(t)
			if t == log.ControlAbort || t == log.ControlCommit {
				l.Coordinator = &epoch
			}
		}
		return l
	}
	if d.Decode != nil {
		if v, ok := d.Decode(rec); ok {
			l.Decoded = v
		}
	}
	return l
}

func controlName(t log.ControlType) string {
	switch t {
	case log.ControlAbort:
		return "abort"
	case log.ControlCommit:
		return "commit"
	}
	return fmt.Sprintf("type %d", t)
}

// quoted is a key or value for people.
func quoted(s *string, b []byte) string {
	switch {
	case s != nil:
		return fmt.Sprintf("%q", *s)
	case b != nil:
		return "base64:" + base64.StdEncoding.EncodeToString(b)
	}
	return "null"
}

func (l *recordLine) text(w io.Writer) {
	fmt.Fprintf(w, "      record %d: %s", l.Offset, when(l.Timestamp))
	switch {
	case l.Control != "":
		fmt.Fprintf(w, " marker %s", l.Control)
		if l.Coordinator != nil {
			fmt.Fprintf(w, " coordinator epoch %d", *l.Coordinator)
		}
		return
	case l.Decoded != nil:
		if b, err := json.Marshal(l.Decoded); err == nil {
			fmt.Fprintf(w, " %s", b)
			return
		}
	}
	fmt.Fprintf(w, " key %s value %s", quoted(l.Key, l.KeyBase64), quoted(l.Value, l.ValueBase64))
	for _, h := range l.Headers {
		fmt.Fprintf(w, " header %q=%s", h.Key, quoted(h.Value, h.Base64))
	}
}

type indexLine struct {
	Type      string  `json:"type"`
	Offset    int64   `json:"offset"`
	Index     *uint64 `json:"index,omitempty"`
	Position  *int64  `json:"position,omitempty"`
	Timestamp *int64  `json:"timestamp,omitempty"`
}

func (l *indexLine) text(w io.Writer) {
	if l.Timestamp != nil {
		fmt.Fprintf(w, "  index by time: %s up to offset %d", when(*l.Timestamp), l.Offset)
		return
	}
	fmt.Fprintf(w, "  index: offset %d, log index %d at byte %d", l.Offset, *l.Index, *l.Position)
}

type damageLine struct {
	Type     string `json:"type"`
	File     string `json:"file"`
	Position int64  `json:"position"`
	End      int64  `json:"end"` // -1 unknown
	Reason   string `json:"reason"`
}

func (l *damageLine) text(w io.Writer) {
	if l.End < 0 {
		fmt.Fprintf(w, "  DAMAGE in %s at %d: %s", l.File, l.Position, l.Reason)
		return
	}
	fmt.Fprintf(w, "  DAMAGE in %s at %d to %d: %s", l.File, l.Position, l.End, l.Reason)
}

type endLine struct {
	Type     string `json:"type"`
	File     string `json:"file"`
	Position int64  `json:"position"`
	Rest     int64  `json:"rest_bytes"`
	Torn     string `json:"torn,omitempty"`
}

func (l *endLine) text(w io.Writer) {
	fmt.Fprintf(w, "  end at %d, %d bytes behind it", l.Position, max(l.Rest, 0))
	if l.Torn != "" {
		fmt.Fprintf(w, ", torn: %s", l.Torn)
	}
}

type totalLine struct {
	Type     string `json:"type"`
	Segments int    `json:"segments"`
	Frames   int64  `json:"frames"`
	Batches  int64  `json:"batches"`
	Records  int64  `json:"records"`
	Damage   int64  `json:"damage"`
}

func (l *totalLine) text(w io.Writer) {
	fmt.Fprintf(w, "total: %d segments, %d frames, %d batches, %d records, %d damaged places", l.Segments, l.Frames, l.Batches, l.Records, l.Damage)
}
