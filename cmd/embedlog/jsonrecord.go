package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/x/embedlog/internal/sock"
)

// recordLine is a record as a line of JSON, in both directions: `consume -J |
// produce -J` loses nothing. docs/cli.md documents it.
type recordLine struct {
	Topic       string          `json:"topic,omitempty"`
	Partition   *int32          `json:"partition,omitempty"`
	Offset      *int64          `json:"offset,omitempty"`
	Timestamp   json.RawMessage `json:"timestamp,omitempty"` // RFC 3339, or milliseconds since 1970
	Key         *string         `json:"key,omitempty"`
	KeyBase64   []byte          `json:"key_base64,omitempty"` // instead of key, when that is not UTF-8
	Value       json.RawMessage `json:"value,omitempty"`      // null: a tombstone
	ValueBase64 []byte          `json:"value_base64,omitempty"`
	Headers     []headerLine    `json:"headers,omitempty"`
}

type headerLine struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"` // null: none
	ValueBase64 []byte  `json:"value_base64,omitempty"`
}

// parseJSONRecord reads one line. Topic and offset are there for the reader of
// the line and do not count.
func parseJSONRecord(line []byte, partition int32) (sock.Record, error) {
	rec := sock.Record{Partition: partition, Offset: -1, Epoch: -1}
	var in recordLine
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return rec, fmt.Errorf("it is not a record in JSON: %s", jsonReason(err))
	}
	if d.More() {
		return rec, errors.New("something follows the JSON object")
	}
	if in.Partition != nil && partition < 0 {
		rec.Partition = *in.Partition
	}
	switch {
	case in.Key != nil && in.KeyBase64 != nil, in.Value != nil && in.ValueBase64 != nil:
		return rec, errors.New("it has both a text and a base64 form of one field")
	case in.Value == nil && in.ValueBase64 == nil:
		return rec, errors.New("it has no value; null is a tombstone")
	}
	rec.Key, rec.Value = in.KeyBase64, in.ValueBase64
	if in.Key != nil {
		rec.Key = []byte(*in.Key)
	}
	if in.Value != nil {
		var err error
		if rec.Value, err = jsonValue(in.Value); err != nil {
			return rec, err
		}
	}
	for _, h := range in.Headers {
		value := h.ValueBase64
		if h.Value != nil {
			value = []byte(*h.Value)
		}
		rec.Headers = append(rec.Headers, sock.Header{Key: h.Key, Value: value})
	}
	var err error
	rec.Time, err = jsonTime(in.Timestamp)
	return rec, err
}

// jsonValue is the text of a string, nil for null, and any other JSON as it stands.
func jsonValue(raw json.RawMessage) ([]byte, error) {
	switch {
	case string(raw) == "null":
		return nil, nil
	case raw[0] == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return []byte(s), err
	}
	return raw, nil
}

func jsonTime(raw json.RawMessage) (t time.Time, err error) {
	if raw == nil || string(raw) == "null" {
		return t, nil
	}
	var ms int64
	if json.Unmarshal(raw, &ms) == nil {
		return time.UnixMilli(ms), nil
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return t, fmt.Errorf("a timestamp is RFC 3339 or milliseconds since 1970, not %s", raw)
	}
	return t, nil
}

// jsonLine writes a record as a line.
func jsonLine(dst []byte, rec *sock.Record) ([]byte, error) {
	out := recordLine{Topic: rec.Topic, Partition: &rec.Partition, Offset: &rec.Offset}
	if !rec.Time.IsZero() {
		out.Timestamp = fmt.Appendf(nil, "%q", rec.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	}
	switch {
	case rec.Key == nil:
	case utf8.Valid(rec.Key):
		key := string(rec.Key)
		out.Key = &key
	default:
		out.KeyBase64 = rec.Key
	}
	switch {
	case rec.Value == nil:
		out.Value = json.RawMessage("null")
	case utf8.Valid(rec.Value):
		text, err := quote(string(rec.Value))
		if err != nil {
			return dst, err
		}
		out.Value = text
	default:
		out.ValueBase64 = rec.Value
	}
	for _, h := range rec.Headers {
		line := headerLine{Key: h.Key}
		switch {
		case h.Value == nil:
		case utf8.Valid(h.Value):
			value := string(h.Value)
			line.Value = &value
		default:
			line.ValueBase64 = h.Value
		}
		out.Headers = append(out.Headers, line)
	}
	b := bytes.NewBuffer(dst)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	err := e.Encode(&out)
	return b.Bytes(), err
}

// quote is JSON's string, with < and & as they are.
func quote(s string) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(s)
	return bytes.TrimSpace(b.Bytes()), err
}

// jsonReason says what is wrong with a line in words of the line, not of our types.
func jsonReason(err error) string {
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the line ends too early"
	case errors.As(err, &kind) && kind.Field == "":
		return "a line is an object with value and perhaps key, headers, timestamp, partition, not a " + kind.Value
	case errors.As(err, &kind):
		return fmt.Sprintf("field %q cannot be a %s", kind.Field, kind.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}
