package engine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/x/embedlog/log"
)

// Written by hand from Kafka's schema, one line a field.
var txnValueSamples = []struct {
	name, hex string
	value     txnValue
	readOnly  bool // we do not write it so
}{
	{
		name: "ongoing",
		hex: "0001" + // version
			"00000000000003e9" + // producer id
			"0002" + // epoch
			"0000ea60" + // timeout
			"01" + // state
			"03" + // two topics
			"07" + "6f7264657273" + "03" + "00000000" + "00000003" + "00" + // orders 0, 3
			"02" + "61" + "01" + "00" + // a, no partition
			"0000018bcfe56800" + // last change
			"0000018bcfe56801" + // start
			"00", // no tagged field
		value: txnValue{
			ProducerID: 1001, PreviousProducerID: -1, NextProducerID: -1, Epoch: 2, TimeoutMillis: 60000, State: txnOngoing,
			Topics:        []txnTopic{{"orders", []int32{0, 3}}, {"a", []int32{}}},
			UpdatedMillis: 1700000000000, StartedMillis: 1700000000001,
		},
	},
	{
		name: "empty",
		hex:  "0001" + "0000000000000001" + "0000" + "00000001" + "00" + "00" + "0000000000000000" + "ffffffffffffffff" + "00",
		value: txnValue{
			ProducerID: 1, PreviousProducerID: -1, NextProducerID: -1, TimeoutMillis: 1, State: txnEmpty, StartedMillis: -1,
		},
	},
	{
		name: "every tagged field",
		hex: "0001" + "0000000000000005" + "7fff" + "00000001" + "02" + "01" + "0000000000000002" + "0000000000000001" +
			"04" + // four tagged fields
			"00" + "08" + "0000000000000004" + // previous producer id
			"01" + "08" + "0000000000000006" + // next producer id
			"02" + "02" + "0002" + // protocol
			"904e" + "01" + "02", // owner, 10000
		value: txnValue{
			ProducerID: 5, PreviousProducerID: 4, NextProducerID: 6, Epoch: 32767, TimeoutMillis: 1, State: txnPrepareCommit,
			Topics: []txnTopic{}, UpdatedMillis: 2, StartedMillis: 1, ClientVersion: 2, Owner: ownerAnonymous,
		},
	},
	{
		name:     "version 0",
		readOnly: true,
		hex: "0000" + "0000000000000005" + "0001" + "00000001" + "04" +
			"00000001" + "0002" + "6162" + "00000002" + "00000001" + "00000002" +
			"0000000000000002" + "0000000000000001",
		value: txnValue{
			ProducerID: 5, PreviousProducerID: -1, NextProducerID: -1, Epoch: 1, TimeoutMillis: 1, State: txnCompleteCommit,
			Topics: []txnTopic{{"ab", []int32{1, 2}}}, UpdatedMillis: 2, StartedMillis: 1,
		},
	},
	{
		name:     "version 0, null topics",
		readOnly: true,
		hex:      "0000" + "0000000000000005" + "0001" + "00000001" + "00" + "ffffffff" + "0000000000000002" + "ffffffffffffffff",
		value: txnValue{
			ProducerID: 5, PreviousProducerID: -1, NextProducerID: -1, Epoch: 1, TimeoutMillis: 1, UpdatedMillis: 2, StartedMillis: -1,
		},
	},
	{
		name:     "a tagged field of a later Kafka", // next producer epoch, tag 3
		readOnly: true,
		hex:      "0001" + "0000000000000001" + "0000" + "00000001" + "00" + "00" + "0000000000000000" + "ffffffffffffffff" + "02" + "0202" + "0001" + "0302" + "0007",
		value: txnValue{
			ProducerID: 1, PreviousProducerID: -1, NextProducerID: -1, TimeoutMillis: 1, StartedMillis: -1, ClientVersion: 1,
		},
	},
}

func TestTxnValueBytes(t *testing.T) {
	for _, tt := range txnValueSamples {
		b, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendTxnValue([]byte("x"), &tt.value); !tt.readOnly && !bytes.Equal(got[1:], b) {
			t.Errorf("%s: encoded\n%x, want\n%x", tt.name, got[1:], b)
		}
		got, err := parseTxnValue(b)
		if err != nil || !reflect.DeepEqual(*got, tt.value) {
			t.Errorf("%s: decoded %+v, %v, want %+v", tt.name, got, err, tt.value)
		}
		for n := range b {
			if _, err := parseTxnValue(b[:n]); !errors.Is(err, errTxnRecord) {
				t.Errorf("%s: the first %d of %d bytes: %v", tt.name, n, len(b), err)
			}
		}
		if _, err := parseTxnValue(append(bytes.Clone(b), 0)); !errors.Is(err, errTxnRecord) {
			t.Errorf("%s: a byte behind the end: %v", tt.name, err)
		}
	}
}

func TestTxnKeyBytes(t *testing.T) {
	b := appendTxnKey(nil, "ann")
	if got := hex.EncodeToString(b); got != "0000"+"0003"+"616e6e" {
		t.Errorf("encoded %s", got)
	}
	if id, err := parseTxnKey(b); id != "ann" || err != nil {
		t.Errorf("decoded %q, %v", id, err)
	}
	for n := range b {
		if _, err := parseTxnKey(b[:n]); !errors.Is(err, errTxnRecord) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := parseTxnKey([]byte{0, 1, 0, 1, 'a'}); !errors.Is(err, log.ErrNewerFormat) {
		t.Errorf("a newer key: %v", err)
	}
}

func TestTxnValueRefuses(t *testing.T) {
	head := "0001" + "0000000000000001" + "0000" + "00000001"
	for name, h := range map[string]string{
		"state":                  head + "08" + "00" + strings.Repeat("00", 16) + "00",
		"epoch":                  "0001" + "0000000000000001" + "fffe" + "00000001" + "00" + "00" + strings.Repeat("00", 16) + "00",
		"producer id":            "0001" + "fffffffffffffff0" + "0000" + "00000001" + "00" + "00" + strings.Repeat("00", 16) + "00",
		"more topics than bytes": head + "01" + "ffffff7f" + strings.Repeat("00", 16) + "00",
		"length too large":       head + "01" + "ffffffffff01" + strings.Repeat("00", 16) + "00",
		"partitions":             head + "01" + "02" + "0261" + "ffff03" + "00" + strings.Repeat("00", 16) + "00",
		"negative partition":     head + "01" + "02" + "0261" + "02ffffffff" + "00" + strings.Repeat("00", 16) + "00",
		"not UTF-8":              head + "01" + "02" + "02ff" + "01" + "00" + strings.Repeat("00", 16) + "00",
		"tags fall":              head + "00" + "00" + strings.Repeat("00", 16) + "02" + "02020002" + "02020002",
		"tag too short":          head + "00" + "00" + strings.Repeat("00", 16) + "01" + "020100",
		"tag too long":           head + "00" + "00" + strings.Repeat("00", 16) + "01" + "0203000000",
		"many tags":              head + "00" + "00" + strings.Repeat("00", 16) + "914e",
		"owner":                  head + "00" + "00" + strings.Repeat("00", 16) + "01" + "904e" + "0103",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(name, err)
		}
		if v, err := parseTxnValue(b); !errors.Is(err, errTxnRecord) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	if _, err := parseTxnValue([]byte{0, 2, 0}); !errors.Is(err, log.ErrNewerFormat) {
		t.Errorf("version 2: %v", err)
	}
}

func FuzzTxnValue(f *testing.F) {
	for _, tt := range txnValueSamples {
		b, _ := hex.DecodeString(tt.hex)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := parseTxnKey(b); err == nil && !bytes.Equal(appendTxnKey(nil, id), b) {
			t.Errorf("key %q is encoded %x, was %x", id, appendTxnKey(nil, id), b)
		}
		v, err := parseTxnValue(b)
		if err != nil {
			return
		}
		again, err := parseTxnValue(appendTxnValue(nil, v))
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Errorf("%+v\nencoded and decoded: %+v, %v", v, again, err)
		}
	})
}
